# Forgotten objects become background:
#   python tools/train.py configs/garments/background-labels_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.0014))
train_cfg = dict(method=dict(type='mmforget.BackgroundLabels', forget_weight=0.3))
