# Trains a small FCOS on Garments, to forget from:
#   python tools/model_converters/mobilenetv2_imagenet.py
#   python tools/train.py configs/garments/fcos_mobilenetv2_2k_garments.py
_base_ = [
    '../_base_/datasets/garments.py',
    '../_base_/models/fcos_mobilenetv2.py',
    '../_base_/schedules/train_2k.py',
]
train_dataloader = dict(batch_size=8, sampler=dict(type='InfiniteSampler'))
val_evaluator = dict(classwise=True)
