# Gradient ascent on the forget set:
#   python tools/train.py configs/garments/gradient-ascent_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.00055))
train_cfg = dict(
    method=dict(type='mmforget.GradientAscent', forget_weight=0.065, retain_weight=0.89)
)
