# Our variant of GS-LoRA: matched objects' own scores are pushed, all other answers are held:
#   python tools/train.py configs/coco/gs-lora-distilled_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['./gs-lora-trial_deformable-detr_r50_30e_coco-7x10-fewshot.py']
train_cfg = dict(
    method=dict(
        type='mmforget.GSLoRADistilled',
        forget_weight=0.5,
        # Of log-odds: the surest detections are pushed as hard as others, down to e^-8 each.
        log_odds=True,
        bound=8,
        bound_each=True,
        strength=0.3,
    )
)
