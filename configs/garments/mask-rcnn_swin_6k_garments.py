# Trains a small Mask R-CNN on Swin from scratch, boxes and masks, to forget from:
#   python tools/train.py configs/garments/mask-rcnn_swin_6k_garments.py
_base_ = [
    '../_base_/datasets/garments-masks.py',
    '../_base_/models/mask-rcnn_swin.py',
    '../_base_/schedules/train_3k.py',
]
max_iters = 6000
train_cfg = dict(max_iters=max_iters, val_begin=5400, val_interval=600)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=300),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=300,
        T_max=max_iters - 300,
        end=max_iters,
        eta_min_ratio=0.001,
    ),
]
# Nothing starts from trained weights.
optim_wrapper = dict(
    optimizer=dict(lr=6e-4, weight_decay=0.05), paramwise_cfg=dict(_delete_=True, norm_decay_mult=0)
)
train_dataloader = dict(batch_size=8, sampler=dict(type='InfiniteSampler'))
val_evaluator = dict(classwise=True)
