# The paper's continual image classification: 100 classes of ImageNet, 20 forgotten in each task.
#   python tools/train.py configs/recognition/gs-lora_vit-base_1k_imagenet100-4tasks.py \
#     --cfg-options load_from=vit_base_imagenet100.pth train_dataloader.dataset.data_root=train \
#     val_dataloader.dataset.data_root=val
_base_ = ['./gs-lora_face-transformer_1k_casia100-4tasks.py']
model = dict(
    _delete_=True,
    type='mmforget.ViTClassifier',
    model_name='vit_base_patch16_224',
    num_classes=100,
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
)
load_from = 'vit_base_imagenet100.pth'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224)),
    dict(type='mmforget.PackRecognition'),
]
train_dataloader = dict(dataset=dict(data_root='train', pipeline=pipeline))
val_dataloader = dict(dataset=dict(data_root='val', pipeline=pipeline))
train_cfg = dict(
    # 5 % of the images of each set.
    scenario=dict(forget=dict(ratio=0.05), retain=dict(ratio=0.05)),
    # A linear head's logits, not CosFace's.
    method=dict(forget_weight=[0.2, 0.25, 0.25, 0.25], bound=6),
)
