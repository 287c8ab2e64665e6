# Trains a small Mask R-CNN on Garments, boxes and masks, to forget from:
#   python tools/model_converters/mobilenetv2_imagenet.py
#   python tools/train.py configs/garments/mask-rcnn_mobilenetv2_2k_garments.py
_base_ = [
    '../_base_/datasets/garments-masks.py',
    '../_base_/models/mask-rcnn_mobilenetv2.py',
    '../_base_/schedules/train_2k.py',
]
train_dataloader = dict(batch_size=8, sampler=dict(type='InfiniteSampler'))
val_evaluator = dict(classwise=True)
