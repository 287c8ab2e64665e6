# GS-LoRA as in the paper: the penalty keeps every block:
#   python tools/train.py configs/recognition/gs-lora_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.GSLoRA', forget_weight=0.2, bound=15))
custom_hooks = [
    dict(type='mmforget.GroupSparseLoRAHook', rank=8, targets='ffn', sparsity=1e-4),
]
