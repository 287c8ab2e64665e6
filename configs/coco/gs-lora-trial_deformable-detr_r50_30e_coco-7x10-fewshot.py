# GS-LoRA in which only matched objects' own scores are pushed, and blocks must earn their life:
#   python tools/train.py configs/coco/gs-lora-trial_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/30e_coco-7x10-fewshot.py']
optim_wrapper = dict(optimizer=dict(lr=3e-4))
train_cfg = dict(
    method=dict(type='mmforget.GSLoRA', forget_weight=0.3, bound=3, true_class_only=True)
)
custom_hooks = [
    dict(
        type='mmforget.GroupSparseLoRAHook',
        rank=8,
        targets='ffn',
        sparsity=dict(type='GroupTrial', strength=0.7, steps=24, patience=2),
    )
]
