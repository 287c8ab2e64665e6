# GS-LoRA++: mean embeddings of the data are the prototypes:
#   python tools/train.py configs/recognition/gs-lora-plus-plus_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/100s_garment-sprites-4x2.py']
train_cfg = dict(
    method=dict(
        type='mmforget.GSLoRAPlusPlus',
        forget_weight=0.2,
        bound=15,
        prototypes='mean',
        push=0.01,
        pull=0.001,
    )
)
custom_hooks = [
    dict(type='mmforget.GroupSparseLoRAHook', rank=8, targets='ffn', sparsity=1e-4),
]
