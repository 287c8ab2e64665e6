# Trains the detector that the other Garments configs forget from (0.9 s an iteration on 2 cores):
#   python tools/model_converters/mobilenetv2_imagenet.py
#   python tools/train.py configs/garments/deformable-detr_mobilenetv2_3k_garments.py
_base_ = [
    '../_base_/datasets/garments.py',
    '../_base_/models/deformable-detr_mobilenetv2.py',
    '../_base_/schedules/train_3k.py',
]
train_dataloader = dict(batch_size=8, sampler=dict(type='InfiniteSampler'))
val_evaluator = dict(classwise=True)
