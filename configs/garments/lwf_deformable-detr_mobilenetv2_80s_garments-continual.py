# LwF: distillation on the forget set:
#   python tools/train.py configs/garments/lwf_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.0012))
train_cfg = dict(method=dict(type='mmforget.LwF', strength=0.074, retain_weight=4.6))
