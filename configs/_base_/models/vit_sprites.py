# A small vision transformer for images of 28×28 pixels: 49 tokens, six blocks of 96 channels.
model = dict(
    type='mmforget.ViTClassifier',
    model_name='vit_tiny_patch16_224',
    timm_args=dict(img_size=28, patch_size=4, embed_dim=96, depth=6, num_heads=3),
    num_classes=10,
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[72.9] * 3, std=[90.0] * 3),
)
