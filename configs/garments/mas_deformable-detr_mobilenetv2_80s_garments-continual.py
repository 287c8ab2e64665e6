# MAS: weights are held by what the logits owe to them:
#   python tools/train.py configs/garments/mas_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.0012))
train_cfg = dict(method=dict(type='mmforget.MAS', strength=0.0022, forget_weight=1.2))
