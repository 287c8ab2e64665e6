# The authors' adapters: 245,760 parameters in twelve groups, a constant penalty of 3e-4.
_base_ = ['./30e_coco-7x10-fewshot.py']
optim_wrapper = dict(optimizer=dict(lr=3e-4))
custom_hooks = [
    dict(type='mmforget.GroupSparseLoRAHook', rank=8, targets='ffn', sparsity=3e-4, init='lora')
]
