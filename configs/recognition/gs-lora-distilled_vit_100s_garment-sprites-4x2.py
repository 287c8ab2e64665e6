# Our variant of GS-LoRA: images' own log-odds are pushed, all other answers are held:
#   python tools/train.py configs/recognition/gs-lora-distilled_vit_100s_garment-sprites-4x2.py
_base_ = ['./gs-lora-trial_vit_100s_garment-sprites-4x2.py']
train_cfg = dict(
    # The values of Garments.
    method=dict(
        type='mmforget.GSLoRADistilled',
        forget_weight=0.5,
        log_odds=True,
        bound=8,
        bound_each=True,
        strength=0.3,
    )
)
