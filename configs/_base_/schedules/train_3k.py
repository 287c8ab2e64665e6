# 3,000 iterations: AdamW with warm-up and cosine decay, the backbone a tenth as fast.
_base_ = ['../default_runtime.py']
max_iters = 3000
# Evaluated over the last tenth of the schedule, to show the plateau.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_begin=2700, val_interval=300)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0, norm_type=2),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
)
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
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)
randomness = dict(seed=42)
