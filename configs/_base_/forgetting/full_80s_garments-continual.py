# Full fine-tuning, as the authors' baselines: all weights of the transformer, heads frozen. So are
# backbone and neck, which the authors train with a thirtieth of the rate: every method remembers
# what they give for an image.
_base_ = ['./80s_garments-continual.py']
optim_wrapper = dict(optimizer=dict(lr=1e-3))
custom_hooks = [
    dict(
        type='mmforget.FullFineTuningHook',
        frozen=[r'backbone\..*', r'neck\..*', r'bbox_head\..*'],
    )
]
