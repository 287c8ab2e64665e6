# Trains a Faster R-CNN on a vision transformer and ViTDet's pyramid:
#   python tools/train.py configs/garments/faster-rcnn_mimdet-vit-sfp_2k_garments.py
_base_ = [
    '../_base_/datasets/garments.py',
    '../_base_/models/faster-rcnn_mimdet-vit-sfp.py',
    '../_base_/schedules/train_2k.py',
]
train_dataloader = dict(batch_size=8, sampler=dict(type='InfiniteSampler'))
val_evaluator = dict(classwise=True)
# The transformer goes as fast as the head, the stem a tenth.
optim_wrapper = dict(
    paramwise_cfg=dict(_delete_=True, custom_keys={'backbone.stem': dict(lr_mult=0.1)})
)
