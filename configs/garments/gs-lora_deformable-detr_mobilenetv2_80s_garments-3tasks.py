# GS-LoRA forgets six of ten garments in three tasks; groups must earn their life:
#   python tools/train.py configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-3tasks.py
_base_ = [
    '../_base_/datasets/garments.py',
    '../_base_/models/deformable-detr_mobilenetv2.py',
    '../_base_/scenarios/garments_3tasks.py',
    '../_base_/schedules/forget_80s.py',
    '../_base_/default_runtime.py',
]
load_from = 'mmforget://deformable-detr_mobilenetv2_garments'
# No augmentation: each image goes through the frozen trunk once.
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=None),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ]
    )
)
train_cfg = dict(
    type='mmforget.ContinualForgettingLoop',
    scenario={{_base_.scenario}},
    max_steps={{_base_.max_steps}},
    # The bound is reached at a score of e^-6 (0.5 * 6 = 3); what follows repairs the retain set.
    method=dict(type='mmforget.GSLoRA', forget_weight=0.3, bound=3, true_class_only=True),
    trunk_cache_mb=1024,
)
custom_hooks = [
    dict(
        type='mmforget.GroupSparseLoRAHook',
        rank=8,
        targets='ffn',
        # Trying all blocks (no patience) takes longer and chooses the same ones.
        sparsity=dict(type='GroupTrial', strength=0.7, steps=8, patience=2),
    )
]
val_evaluator = dict(type='mmforget.ForgettingCocoMetric')
test_evaluator = dict(type='mmforget.ForgettingCocoMetric')
