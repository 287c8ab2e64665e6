# A vision transformer below a Faster R-CNN, whose levels all come from its one map (ViTDet).
_base_ = ['./faster-rcnn_mobilenetv2.py']
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
        ),
        out_strides=(16,),
        # Stem and transformer start from those that a Deformable DETR was trained with.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='mmforget://deformable-detr_mimdet-vit_garments',
            prefix='backbone.',
        ),
    ),
    neck=dict(
        _delete_=True,
        type='mmforget.SimpleFeaturePyramid',
        in_channels=192,
        out_channels=96,
        num_outs=4,
    ),
)
