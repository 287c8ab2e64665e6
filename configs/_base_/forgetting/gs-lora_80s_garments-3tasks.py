# GS-LoRA forgets six of ten garments in three tasks, as in the demo; model and weights are left out.
_base_ = [
    '../datasets/garments.py',
    '../scenarios/garments_3tasks.py',
    '../schedules/forget_80s.py',
    '../default_runtime.py',
]
in_process = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **in_process,
    dataset=dict(
        # No RandomFlip: each image goes through the frozen part of the detector once.
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=None),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ]
    ),
)
val_dataloader = in_process
train_cfg = dict(
    type='mmforget.ContinualForgettingLoop',
    scenario={{_base_.scenario}},
    max_steps={{_base_.max_steps}},
    method=dict(type='mmforget.GSLoRA', forget_weight=0.3),
    trunk_cache_mb=1024,
    image_cache_mb=128,
)
custom_hooks = [
    dict(
        type='mmforget.GroupSparseLoRAHook',
        rank=8,
        targets='ffn',
        sparsity=dict(type='GroupTrial', strength=0.7, steps=8, patience=2),
    ),
    dict(type='mmforget.ForgettingPicturesHook'),
]
val_evaluator = dict(type='mmforget.ForgettingCocoMetric')
test_evaluator = dict(type='mmforget.ForgettingCocoMetric')
