# L2 towards the weights before each task:
#   python tools/train.py configs/garments/l2_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.0012))
train_cfg = dict(method=dict(type='mmforget.L2', strength=0.0018, forget_weight=1.2))
