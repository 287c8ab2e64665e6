# GS-LoRA++: prototypes push what is forgotten and pull the rest:
#   python tools/train.py configs/garments/gs-lora-plus-plus_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/80s_garments-continual.py']
train_cfg = dict(method=dict(type='mmforget.GSLoRAPlusPlus', pull=0.001))
custom_hooks = [
    dict(type='mmforget.GroupSparseLoRAHook', rank=8, targets='ffn', sparsity=3e-4),
]
