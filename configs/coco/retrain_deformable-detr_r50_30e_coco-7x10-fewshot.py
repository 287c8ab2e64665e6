# A reference: really drawn anew before each task, with the same budget:
#   python tools/train.py configs/coco/retrain_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.FineTuning', auxiliary=True))
optim_wrapper = dict(
    optimizer=dict(lr=6e-4), paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=1 / 30)})
)
custom_hooks = [dict(type='mmforget.ReinitialisedHook')]
