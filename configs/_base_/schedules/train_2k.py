# The same in 2,000 iterations.
_base_ = ['./train_3k.py']
max_iters = 2000
train_cfg = dict(max_iters=max_iters, val_begin=1800, val_interval=200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=200,
        T_max=max_iters - 200,
        end=max_iters,
        eta_min_ratio=0.001,
    ),
]
