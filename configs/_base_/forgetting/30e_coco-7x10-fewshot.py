# The authors' detection runs: Deformable DETR R50, 30 passes over the retain stream for each task,
# 32 + 32 images a step (8 GPUs of 4 + 4). Method and trainable part are left out.
_base_ = [
    'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    '../scenarios/coco_7x10-fewshot.py',
]
custom_imports = dict(imports=['mmforget'], allow_failed_imports=False)
# mmdet's own: AP 44.3.
load_from = (
    'https://download.openmmlab.com/mmdetection/v3.0/deformable_detr/'
    'deformable-detr_r50_16xb2-50e_coco/deformable-detr_r50_16xb2-50e_coco_20221029_210934-6bc7d21b.pth'
)
train_dataloader = dict(
    batch_size=32,
    # Small images count when the authors draw theirs.
    dataset=dict(filter_cfg=dict(min_size=0)),
)
train_cfg = dict(
    _delete_=True,
    type='mmforget.ContinualForgettingLoop',
    scenario={{_base_.scenario}},
    # Of equal length in steps for all methods, which the authors' runs are not.
    retain_epochs=30,
)
# Constant: theirs falls after 40 of 30 epochs.
param_scheduler = []
# With --auto-scale-lr the rates follow another batch_size.
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=100, max_keep_ckpts=2))
randomness = dict(seed=42)
val_evaluator = dict(type='mmforget.ForgettingCocoMetric')
test_evaluator = dict(type='mmforget.ForgettingCocoMetric')
