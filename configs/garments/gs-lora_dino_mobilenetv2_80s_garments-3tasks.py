# GS-LoRA forgets six garments from a small DINO, which is trained first:
#   python tools/train.py configs/garments/dino_mobilenetv2_3k_garments.py
#   python tools/train.py configs/garments/gs-lora_dino_mobilenetv2_80s_garments-3tasks.py
_base_ = [
    '../_base_/forgetting/gs-lora_80s_garments-3tasks.py',
    '../_base_/models/dino_mobilenetv2.py',
]
load_from = 'work_dirs/dino_mobilenetv2_3k_garments/iter_3000.pth'
# The bound is reached at a score of e^-6, in a focal loss of weight 1.
train_cfg = dict(method=dict(true_class_only=True, bound=1.5, bound_each=True))
