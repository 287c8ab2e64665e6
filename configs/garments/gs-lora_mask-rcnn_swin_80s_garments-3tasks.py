# GS-LoRA forgets six garments from a small Mask R-CNN on Swin, which is trained first:
#   python tools/train.py configs/garments/mask-rcnn_swin_6k_garments.py
#   python tools/train.py configs/garments/gs-lora_mask-rcnn_swin_80s_garments-3tasks.py
_base_ = [
    '../_base_/forgetting/gs-lora_80s_garments-3tasks.py',
    '../_base_/models/mask-rcnn_swin.py',
]
load_from = 'work_dirs/mask-rcnn_swin_6k_garments/iter_6000.pth'
# The bound is reached at a score of e^-6.
train_cfg = dict(method=dict(matched_only=True, bound=6))
# Masks are scored, too.
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=None),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs'),
        ]
    )
)
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = dict(metric=['bbox', 'segm'])
