# Fine-tuning of all weights on the retain set: what is unlabelled there is background:
#   python tools/train.py configs/coco/fine-tuning_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/full_30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.FineTuning', auxiliary=True))
optim_wrapper = dict(
    optimizer=dict(lr=2e-4), paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=1 / 10)})
)
custom_hooks = [dict(type='mmforget.FullFineTuningHook', frozen=())]
