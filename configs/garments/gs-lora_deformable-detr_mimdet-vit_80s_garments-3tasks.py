# GS-LoRA forgets six garments from a small Deformable DETR on a vision transformer, which is trained first:
#   python tools/train.py configs/garments/deformable-detr_mimdet-vit_3k_garments.py
#   python tools/train.py configs/garments/gs-lora_deformable-detr_mimdet-vit_80s_garments-3tasks.py
_base_ = [
    '../_base_/forgetting/gs-lora_80s_garments-3tasks.py',
    '../_base_/models/deformable-detr_mimdet-vit.py',
]
load_from = 'work_dirs/deformable-detr_mimdet-vit_3k_garments/iter_3000.pth'
# The bound is reached at a score of e^-6, in a focal loss of weight 2.
train_cfg = dict(method=dict(true_class_only=True, bound=3))
