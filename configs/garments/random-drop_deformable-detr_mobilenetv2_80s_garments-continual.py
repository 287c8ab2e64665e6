# A reference: up to a fifth of each tensor's entries are set to zero, nothing is trained:
#   python tools/train.py configs/garments/random-drop_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/80s_garments-continual.py']
train_cfg = dict(method=dict(type='mmforget.FineTuning'))
custom_hooks = [dict(type='mmforget.RandomDropHook')]
