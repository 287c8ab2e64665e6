# The paper's protocol of four tasks on the small classifier, which is trained first:
#   python tools/train.py configs/recognition/vit_2k_garment-sprites.py
#   python tools/train.py configs/recognition/gs-lora_vit_100s_garment-sprites-4tasks.py
_base_ = [
    '../_base_/datasets/garment_sprites.py',
    '../_base_/models/vit_sprites.py',
    '../_base_/schedules/forget_80s.py',
    '../_base_/default_runtime.py',
]
load_from = 'work_dirs/vit_2k_garment-sprites/iter_2000.pth'
train_cfg = dict(
    type='mmforget.ContinualForgettingLoop',
    scenario=dict(
        tasks=[['bag', 'sneaker'], ['trouser', 'sandal'], ['dress', 'shirt'], ['coat', 'pullover']],
        # Half of the images: the paper's tenth would be 40 of a class, which are learnt by heart.
        forget=dict(ratio=0.5, augmentations=1),
        retain=dict(ratio=0.5, augmentations=1),
    ),
    max_steps=100,
    # Reached at a probability of e^-6.
    method=dict(type='mmforget.GSLoRA', forget_weight=0.3, bound=6, bound_each=True),
    trunk_cache_mb=256,
    image_cache_mb=64,
)
custom_hooks = [
    dict(
        type='mmforget.GroupSparseLoRAHook',
        rank=8,
        targets='ffn',
        sparsity=dict(type='GroupTrial', strength=0.7, steps=8, patience=2),
    )
]
