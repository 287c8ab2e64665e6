# Trains a Deformable DETR on a vision transformer, to forget from:
#   python tools/model_converters/mobilenetv2_imagenet.py
#   python tools/train.py configs/garments/deformable-detr_mimdet-vit_3k_garments.py
_base_ = [
    '../_base_/datasets/garments.py',
    '../_base_/models/deformable-detr_mimdet-vit.py',
    '../_base_/schedules/train_3k.py',
]
train_dataloader = dict(batch_size=8, sampler=dict(type='InfiniteSampler'))
val_evaluator = dict(classwise=True)
# The transformer starts from noise, the stem from ImageNet.
optim_wrapper = dict(
    paramwise_cfg=dict(_delete_=True, custom_keys={'backbone.stem': dict(lr_mult=0.1)})
)
