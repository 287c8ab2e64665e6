# Full fine-tuning of all but the head, as the authors' baselines.
_base_ = ['./100s_garment-sprites-4x2.py']
optim_wrapper = dict(optimizer=dict(lr=3e-4, weight_decay=0.05))
custom_hooks = [dict(type='mmforget.FullFineTuningHook', frozen='heads')]
