# DER: the retain set's logits are held:
#   python tools/train.py configs/garments/der_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.0018))
train_cfg = dict(method=dict(type='mmforget.DER', strength=0.017, forget_weight=1.5))
