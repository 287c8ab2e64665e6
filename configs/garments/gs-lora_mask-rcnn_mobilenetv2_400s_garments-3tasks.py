# GS-LoRA forgets six garments, boxes and masks, from a small Mask R-CNN, which is trained first:
#   python tools/train.py configs/garments/mask-rcnn_mobilenetv2_2k_garments.py
#   python tools/train.py configs/garments/gs-lora_mask-rcnn_mobilenetv2_400s_garments-3tasks.py
_base_ = [
    '../_base_/forgetting/gs-lora_400s_garments-3tasks.py',
    '../_base_/models/mask-rcnn_mobilenetv2.py',
]
load_from = 'work_dirs/mask-rcnn_mobilenetv2_2k_garments/iter_2000.pth'
# The bound is reached at a score of e^-6.
train_cfg = dict(method=dict(bound=6))
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
# Masks are scored, too.
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=None),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    )
)
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = dict(metric=['bbox', 'segm'])
