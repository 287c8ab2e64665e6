# FDR: the distance from the retain set's logits is held:
#   python tools/train.py configs/garments/fdr_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
train_cfg = dict(method=dict(type='mmforget.FDR'))
