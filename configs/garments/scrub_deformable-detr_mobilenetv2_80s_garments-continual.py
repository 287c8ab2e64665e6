# SCRUB: away from the teacher on the forget set, back to it on the retain set:
#   python tools/train.py configs/garments/scrub_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.00091))
train_cfg = dict(method=dict(type='mmforget.SCRUB', retain_weight=1.2, distillation_weight=0.0001))
