# GS-LoRA forgets six of ten garments in three tasks, with groups that must earn their life:
#   python tools/train.py configs/garments/gs-lora_deformable-detr_mobilenetv2_150s_garments-3tasks.py
_base_ = [
    '../_base_/datasets/garments.py',
    '../_base_/models/deformable-detr_mobilenetv2.py',
    '../_base_/scenarios/garments_3tasks.py',
    '../_base_/schedules/forget_150s.py',
    '../_base_/default_runtime.py',
]
load_from = 'mmforget://deformable-detr_mobilenetv2_garments'
train_cfg = dict(
    type='mmforget.ContinualForgettingLoop',
    scenario={{_base_.scenario}},
    max_steps={{_base_.max_steps}},
    method=dict(type='mmforget.GSLoRA', forget_weight=0.1, bound=15),
)
custom_hooks = [
    dict(
        type='mmforget.GroupSparseLoRAHook',
        rank=8,
        targets='ffn',
        sparsity=dict(type='GroupSelection', strength=0.5, window=0.2),
    )
]
val_evaluator = dict(type='mmforget.ForgettingCocoMetric')
test_evaluator = dict(type='mmforget.ForgettingCocoMetric')
