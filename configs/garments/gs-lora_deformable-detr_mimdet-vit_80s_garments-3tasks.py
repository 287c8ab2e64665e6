# GS-LoRA forgets six garments from the shipped Deformable DETR on a vision transformer:
#   python tools/train.py configs/garments/gs-lora_deformable-detr_mimdet-vit_80s_garments-3tasks.py
_base_ = [
    '../_base_/forgetting/gs-lora_80s_garments-3tasks.py',
    '../_base_/models/deformable-detr_mimdet-vit.py',
]
load_from = 'mmforget://deformable-detr_mimdet-vit_garments'
# The bound is reached at a score of e^-6, in a focal loss of weight 2.
train_cfg = dict(method=dict(true_class_only=True, bound=3))
