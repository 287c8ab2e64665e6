# A small FCOS that trains on two CPU cores: MobileNetV2, a pyramid of 96 channels.
model = dict(
    type='FCOS',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='mmforget.MobileNetV2Stem',
        out_indices=(2, 4, 6),
        norm_eval=True,
        norm_cfg=dict(type='BN', requires_grad=False),
        init_cfg=dict(type='Pretrained', checkpoint='mmforget://mobilenetv2_imagenet'),
    ),
    neck=dict(type='FPN', in_channels=[32, 96, 320], out_channels=96, num_outs=3),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=10,
        in_channels=96,
        feat_channels=96,
        stacked_convs=2,
        strides=[8, 16, 32],
        # The scenes are 160 pixels wide.
        regress_ranges=((-1, 32), (32, 64), (64, 1e8)),
        center_sampling=True,
        norm_on_bbox=True,
        centerness_on_reg=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
    test_cfg=dict(
        nms_pre=300,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100,
    ),
)
