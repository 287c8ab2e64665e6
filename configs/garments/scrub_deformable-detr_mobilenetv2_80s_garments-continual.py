# SCRUB: away from the teacher on the forget set, back to it on the retain set:
#   python tools/train.py configs/garments/scrub_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
train_cfg = dict(method=dict(type='mmforget.SCRUB'))
