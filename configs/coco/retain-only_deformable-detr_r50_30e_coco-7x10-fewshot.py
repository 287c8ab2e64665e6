# A reference: GS-LoRA's adapters on the retain set alone (β = 0):
#   python tools/train.py configs/coco/retain-only_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/gs-lora_30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.GSLoRA', forget_weight=0.0))
