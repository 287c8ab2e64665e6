# What all methods share: classifier, data, tasks and budget. Method and trainable part are left out.
_base_ = [
    '../datasets/garment_sprites.py',
    '../models/vit_sprites.py',
    '../scenarios/garment-sprites_4x2.py',
    '../schedules/forget_80s.py',
    '../default_runtime.py',
]
load_from = 'work_dirs/vit_2k_garment-sprites/iter_2000.pth'
max_steps = 100
train_cfg = dict(
    type='mmforget.ContinualForgettingLoop',
    scenario={{_base_.scenario}},
    max_steps=max_steps,
    image_cache_mb=64,
)
