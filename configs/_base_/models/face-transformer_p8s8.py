# The paper's Face Transformer: patches of 8 pixels, six blocks of 512 channels, CosFace.
model = dict(
    type='mmforget.ViTClassifier',
    model_name='vit_base_patch16_224',
    timm_args=dict(img_size=112, patch_size=8, embed_dim=512, depth=6, num_heads=8, mlp_ratio=4),
    num_classes=100,
    head=dict(type='cosface', scale=64, margin=0.35),
    data_preprocessor=dict(
        type='ImgDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True
    ),
)
