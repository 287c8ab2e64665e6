# A reference: trained from ImageNet weights on all data of the classes that are retained to the end:
#   python tools/train.py configs/garments/oracle_deformable-detr_mobilenetv2_3k_garments-continual.py
_base_ = ['../_base_/forgetting/80s_garments-continual.py']
max_steps = 3000
# The loaded detector's own schedule, see deformable-detr_mobilenetv2_3k_garments.py.
optim_wrapper = dict(
    optimizer=dict(lr=3e-4), paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)})
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, eta_min_ratio=0.001),
]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=None),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    )
)
train_cfg = dict(
    max_steps=max_steps,
    method=dict(type='mmforget.FineTuning', auxiliary=True),
    # All requests at once.
    scenario=dict(
        tasks=[8],
        forget=dict(augmentations=None),
        retain=dict(ratio=1.0, augmentations=None, recurring=False),
    ),
    trunk_cache_mb=0,
    image_cache_mb=0,
    checkpoint_interval=500,
)
custom_hooks = [dict(type='mmforget.ReinitialisedHook')]
