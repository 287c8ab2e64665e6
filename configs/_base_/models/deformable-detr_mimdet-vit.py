# A vision transformer below a Deformable DETR: MIMDet's hybrid at the scale of ViT-tiny.
_base_ = ['./deformable-detr_mobilenetv2.py']
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmforget.MIMDetHybrid',
        # 192 channels; half of its twelve blocks.
        model_name='vit_tiny_patch16_224',
        timm_args=dict(depth=6),
        img_size=160,
        stem=dict(
            type='mmforget.MobileNetV2Stem',
            norm_eval=True,
            norm_cfg=dict(type='BN', requires_grad=False),
            init_cfg=dict(type='Pretrained', checkpoint='mmforget://mobilenetv2_imagenet'),
        ),
        out_strides=(8, 16, 32),
    ),
    neck=dict(in_channels=[32, 192, 192]),
)
