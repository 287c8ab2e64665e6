# GS-LoRA forgets six garments from a small Faster R-CNN on a vision transformer, which is trained first:
#   python tools/train.py configs/garments/faster-rcnn_mimdet-vit-sfp_2k_garments.py
#   python tools/train.py configs/garments/gs-lora_faster-rcnn_mimdet-vit-sfp_400s_garments-3tasks.py
_base_ = [
    '../_base_/forgetting/gs-lora_400s_garments-3tasks.py',
    '../_base_/models/faster-rcnn_mimdet-vit-sfp.py',
]
load_from = 'work_dirs/faster-rcnn_mimdet-vit-sfp_2k_garments/iter_2000.pth'
# The bound is reached at a score of e^-6.
train_cfg = dict(method=dict(bound=6))
# The transformer is in the backbone alone: the box head is tried beside its blocks.
custom_hooks = [
    dict(
        type='mmforget.GroupSparseLoRAHook',
        rank=8,
        targets=['ffn', 'head'],
        sparsity={{_base_.sparsity}},
    ),
    dict(type='mmforget.ForgettingPicturesHook'),
]
