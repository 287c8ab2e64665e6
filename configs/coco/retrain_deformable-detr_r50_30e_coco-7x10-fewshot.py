# A reference: really drawn anew before each task, with the same budget:
#   python tools/train.py configs/coco/retrain_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.FineTuning', auxiliary=True))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
custom_hooks = [dict(type='mmforget.ReinitialisedHook')]
