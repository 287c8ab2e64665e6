# A reference: trained from ImageNet weights on all data of the classes that are retained to the end:
#   python tools/train.py configs/coco/oracle_deformable-detr_r50_50e_coco-7x10.py
_base_ = ['../_base_/forgetting/30e_coco-7x10-fewshot.py']
train_cfg = dict(
    method=dict(type='mmforget.FineTuning', auxiliary=True),
    # All requests at once; mmdet's own schedule.
    scenario=dict(
        tasks=[70],
        retain=dict(shots=None, ratio=1.0, authors_seed=None),
    ),
    retain_epochs=50,
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=50, milestones=[40], gamma=0.1)
]
custom_hooks = [dict(type='mmforget.ReinitialisedHook')]
