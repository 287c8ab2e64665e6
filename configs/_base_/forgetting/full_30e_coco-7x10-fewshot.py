# The authors' baselines: full fine-tuning but for the heads, the backbone at 2e-5 whatever the rate.
_base_ = ['./30e_coco-7x10-fewshot.py']
optim_wrapper = dict(
    optimizer=dict(lr=6e-4),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=1 / 30)}),
)
custom_hooks = [dict(type='mmforget.FullFineTuningHook', frozen='heads')]
