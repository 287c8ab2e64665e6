# SCRUB with smoothing, which the authors have for classification only:
#   python tools/train.py configs/coco/scrub-s_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/full_30e_coco-7x10-fewshot.py']
train_cfg = dict(
    method=dict(
        type='mmforget.SCRUBS', smoothing=0.05, retain_weight=0.99, distillation_weight=0.001
    )
)
# Divided by ten after two thirds.
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=5e-4),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=1 / 5)}),
)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=30, milestones=[20], gamma=0.1)
]
