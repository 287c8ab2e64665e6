# A reference: trained from nothing on all data of the classes that are retained to the end:
#   python tools/train.py configs/recognition/oracle_vit_2k_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/100s_garment-sprites-4x2.py']
max_steps = 2000
# The loaded classifier's own schedule, see vit_2k_garment-sprites.py.
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05), paramwise_cfg=dict(norm_decay_mult=0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, eta_min_ratio=0.001),
]
train_cfg = dict(
    max_steps=max_steps,
    method=dict(type='mmforget.FineTuning'),
    # All requests at once.
    scenario=dict(
        tasks=[8],
        forget=dict(augmentations=None),
        retain=dict(ratio=1.0, augmentations=None),
    ),
    image_cache_mb=0,
)
custom_hooks = [dict(type='mmforget.ReinitialisedHook')]
