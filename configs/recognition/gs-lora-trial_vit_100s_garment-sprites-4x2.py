# GS-LoRA with a bound for each image, in which blocks must earn their life:
#   python tools/train.py configs/recognition/gs-lora-trial_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/100s_garment-sprites-4x2.py']
train_cfg = dict(
    # Reached at a probability of e^-6.
    method=dict(type='mmforget.GSLoRA', forget_weight=0.3, bound=6, bound_each=True)
)
custom_hooks = [
    dict(
        type='mmforget.GroupSparseLoRAHook',
        rank=8,
        targets='ffn',
        sparsity=dict(type='GroupTrial', strength=0.7, steps=8, patience=2),
    )
]
