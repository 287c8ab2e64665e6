# DER++: logits and labels of the retain set:
#   python tools/train.py configs/garments/der-plus-plus_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.0012))
train_cfg = dict(method=dict(type='mmforget.DERPlusPlus', strength=0.00018, retain_weight=0.77))
