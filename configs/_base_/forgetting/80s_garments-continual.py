# What all methods share: detector, data, tasks and budget. Method and trainable part are left out.
_base_ = [
    '../datasets/garments.py',
    '../models/deformable-detr_mobilenetv2.py',
    '../scenarios/garments_continual.py',
    '../schedules/forget_80s.py',
    '../default_runtime.py',
]
load_from = 'mmforget://deformable-detr_mobilenetv2_garments'
in_process = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **in_process,
    dataset=dict(
        # No RandomFlip: each image goes through the frozen backbone once.
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=None),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ]
    ),
)
val_dataloader = in_process
test_dataloader = in_process
train_cfg = dict(
    type='mmforget.ContinualForgettingLoop',
    scenario={{_base_.scenario}},
    max_steps={{_base_.max_steps}},
    trunk_cache_mb=1024,
    image_cache_mb=128,
)
val_evaluator = dict(type='mmforget.ForgettingCocoMetric')
test_evaluator = dict(type='mmforget.ForgettingCocoMetric')
