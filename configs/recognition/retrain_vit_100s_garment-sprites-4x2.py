# A reference: all weights are drawn anew before each task, same budget:
#   python tools/train.py configs/recognition/retrain_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.FineTuning'))
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.05))
custom_hooks = [dict(type='mmforget.ReinitialisedHook')]
