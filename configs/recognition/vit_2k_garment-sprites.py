# Trains a small classifier of garments, to forget from (two minutes on 2 cores):
#   python tools/train.py configs/recognition/vit_2k_garment-sprites.py
_base_ = [
    '../_base_/datasets/garment_sprites.py',
    '../_base_/models/vit_sprites.py',
    '../_base_/schedules/train_3k.py',
]
max_iters = 2000
train_cfg = dict(max_iters=max_iters, val_begin=1000, val_interval=500)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05), paramwise_cfg=dict(_delete_=True, norm_decay_mult=0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=100,
        T_max=max_iters - 100,
        end=max_iters,
        eta_min_ratio=0.001,
    ),
]
