# Trains a Faster R-CNN on a vision transformer and ViTDet's pyramid:
#   python tools/train.py configs/garments/faster-rcnn_mimdet-vit-sfp_2k_garments.py
_base_ = [
    '../_base_/datasets/garments.py',
    '../_base_/models/faster-rcnn_mimdet-vit-sfp.py',
    '../_base_/schedules/train_2k.py',
]
train_dataloader = dict(batch_size=8, sampler=dict(type='InfiniteSampler'))
val_evaluator = dict(classwise=True)
# The pyramid's maps are normed: a box head of so many inputs takes smaller steps on them.
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(_delete_=True, custom_keys={'backbone.stem': dict(lr_mult=0.1)}),
)
