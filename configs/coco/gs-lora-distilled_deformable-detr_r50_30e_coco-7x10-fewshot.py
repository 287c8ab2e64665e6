# Our variant of GS-LoRA: as gs-lora-trial, and all answers but those to be forgotten are held:
#   python tools/train.py configs/coco/gs-lora-distilled_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['./gs-lora-trial_deformable-detr_r50_30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.GSLoRADistilled', strength=0.3))
