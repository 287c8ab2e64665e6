# Our variant of GS-LoRA: matched objects' own scores are pushed, all other answers are held:
#   python tools/train.py configs/recognition/gs-lora-distilled_vit_100s_garment-sprites-4x2.py
_base_ = ['./gs-lora-trial_vit_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.GSLoRADistilled', strength=0.3))
