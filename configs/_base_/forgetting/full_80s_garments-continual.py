# Full fine-tuning, as the authors' baselines: all weights but the heads. The backbone, which they
# train with a thirtieth of the rate, is frozen, so that every method remembers its features.
_base_ = ['./80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=3e-4))
custom_hooks = [
    dict(type='mmforget.FullFineTuningHook', frozen=[r'backbone\..*', r'bbox_head\..*'])
]
