# A reference: up to a fifth of each tensor's entries are set to zero, nothing is trained:
#   python tools/train.py configs/recognition/random-drop_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.FineTuning'))
custom_hooks = [dict(type='mmforget.RandomDropHook')]
