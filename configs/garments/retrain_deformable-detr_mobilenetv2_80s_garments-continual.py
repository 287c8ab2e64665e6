# A reference: all weights are drawn anew before each task (the backbone's from ImageNet), same budget:
#   python tools/train.py configs/garments/retrain_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/80s_garments-continual.py']
train_cfg = dict(method=dict(type='mmforget.FineTuning', auxiliary=True))
optim_wrapper = dict(optimizer=dict(lr=3e-4))
custom_hooks = [dict(type='mmforget.ReinitialisedHook')]
