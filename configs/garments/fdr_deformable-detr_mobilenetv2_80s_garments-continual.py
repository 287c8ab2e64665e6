# FDR: the distance from the retain set's logits is held:
#   python tools/train.py configs/garments/fdr_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.0012))
train_cfg = dict(method=dict(type='mmforget.FDR', strength=0.74, forget_weight=1.2))
