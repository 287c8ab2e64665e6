# GS-LoRA as in the paper: the penalty keeps every block:
#   python tools/train.py configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=0.0079))
train_cfg = dict(method=dict(type='mmforget.GSLoRA', forget_weight=0.041, bound=7.5))
custom_hooks = [
    dict(type='mmforget.GroupSparseLoRAHook', rank=8, targets='ffn', sparsity=3e-4),
]
