# Trains the detector that the other Garments configs forget from (about 1.5 hours on 2 cores):
#   python tools/model_converters/mobilenetv2_imagenet.py
#   python tools/train.py configs/garments/deformable-detr_mobilenetv2_12e_garments.py
_base_ = [
    '../_base_/datasets/garments.py',
    '../_base_/models/deformable-detr_mobilenetv2.py',
    '../_base_/default_runtime.py',
]
max_epochs = 12
train_dataloader = dict(batch_size=8)
iterations_per_epoch = 500
# Evaluates at epochs 3 and 6, then every epoch, to show the plateau.
train_cfg = dict(
    type='EpochBasedTrainLoop',
    max_epochs=max_epochs,
    val_interval=3,
    dynamic_intervals=[(9, 1)],
)
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
        T_max=max_epochs * iterations_per_epoch - 200,
        end=max_epochs * iterations_per_epoch,
        eta_min_ratio=0.001,
    ),
]
randomness = dict(seed=42)
