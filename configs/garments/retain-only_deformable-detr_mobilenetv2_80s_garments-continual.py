# A reference: GS-LoRA's adapters on the retain set alone (β = 0):
#   python tools/train.py configs/garments/retain-only_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/80s_garments-continual.py']
train_cfg = dict(method=dict(type='mmforget.GSLoRA', forget_weight=0.0))
custom_hooks = [
    dict(type='mmforget.GroupSparseLoRAHook', rank=8, targets='ffn', sparsity=3e-4),
]
