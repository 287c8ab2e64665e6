# Our variant of GS-LoRA: as gs-lora-trial, and all answers but those to be forgotten are held:
#   python tools/train.py configs/garments/gs-lora-distilled_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['./gs-lora-trial_deformable-detr_mobilenetv2_80s_garments-continual.py']
train_cfg = dict(method=dict(type='mmforget.GSLoRADistilled', strength=0.3))
