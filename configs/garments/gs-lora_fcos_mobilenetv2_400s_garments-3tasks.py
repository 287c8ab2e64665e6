# GS-LoRA forgets six garments from a small FCOS, which is trained first:
#   python tools/train.py configs/garments/fcos_mobilenetv2_2k_garments.py
#   python tools/train.py configs/garments/gs-lora_fcos_mobilenetv2_400s_garments-3tasks.py
_base_ = [
    '../_base_/forgetting/gs-lora_400s_garments-3tasks.py',
    '../_base_/models/fcos_mobilenetv2.py',
]
load_from = 'work_dirs/fcos_mobilenetv2_2k_garments/iter_2000.pth'
# The bound is reached at a score of e^-6, in a focal loss of weight 1, of which alpha is 0.25.
train_cfg = dict(method=dict(bound=1.5))
# No transformer blocks: adapters go to the convolutions, in groups by stage.
custom_hooks = [
    dict(
        type='mmforget.GroupSparseLoRAHook',
        rank=8,
        targets='conv',
        group_by='stage',
        sparsity={{_base_.sparsity}},
    ),
    dict(type='mmforget.ForgettingPicturesHook'),
]
