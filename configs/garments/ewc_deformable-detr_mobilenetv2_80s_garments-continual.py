# EWC: weights are held by their Fisher information:
#   python tools/train.py configs/garments/ewc_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
train_cfg = dict(method=dict(type='mmforget.EWC'))
