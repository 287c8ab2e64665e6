# GS-LoRA in which only matched objects' own scores are pushed, and blocks must earn their life:
#   python tools/train.py configs/garments/gs-lora-trial_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.015))
train_cfg = dict(
    method=dict(type='mmforget.GSLoRA', forget_weight=0.79, bound=2.7, true_class_only=True)
)
custom_hooks = [
    dict(
        type='mmforget.GroupSparseLoRAHook',
        rank=8,
        targets='ffn',
        sparsity=dict(type='GroupTrial', strength=0.7, steps=8, patience=2),
    ),
]
