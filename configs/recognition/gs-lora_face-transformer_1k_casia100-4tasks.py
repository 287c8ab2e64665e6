# The paper's continual face recognition: 100 people in folders, 20 of them forgotten in each task.
#   python tools/train.py configs/recognition/gs-lora_face-transformer_1k_casia100-4tasks.py \
#     --cfg-options load_from=face_transformer.pth train_dataloader.dataset.data_root=faces/train \
#     val_dataloader.dataset.data_root=faces/test
_base_ = ['../_base_/models/face-transformer_p8s8.py', '../_base_/default_runtime.py']
load_from = 'face_transformer.pth'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(112, 112)),
    dict(type='mmforget.PackRecognition'),
]
train_dataloader = dict(
    batch_size=48,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mmforget.ImageFolder', data_root='faces/train', pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=200,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmforget.ImageFolder', data_root='faces/test', pipeline=pipeline),
)
# Folders are named 0 to 99 here, in the paper's order (seed 1337) forgotten from the end.
tasks = [[str(label) for label in range(start, start + 20)] for start in (80, 60, 40, 20)]
train_cfg = dict(
    type='mmforget.ContinualForgettingLoop',
    scenario=dict(tasks=tasks, forget=dict(ratio=0.1), retain=dict(ratio=0.1)),
    # 100 epochs of the retain stream in the paper, whose length shrinks with the classes; here all
    # tasks have equal budgets.
    max_steps=1000,
    # CosFace's logits have a scale of 64, hence the bound.
    method=dict(type='mmforget.GSLoRA', forget_weight=[0.2, 0.25, 0.25, 0.2], bound=105),
)
val_cfg = dict(type='ValLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, eta_min=1e-5)]
custom_hooks = [
    dict(type='mmforget.GroupSparseLoRAHook', rank=8, targets='ffn', sparsity=1e-4),
]
val_evaluator = dict(type='mmforget.ForgettingAccuracy')
randomness = dict(seed=1337)
