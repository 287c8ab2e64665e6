# GS-LoRA as the authors' code runs it: the first task begins with Xavier noise in the adapters:
#   python tools/train.py configs/coco/gs-lora-authors_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['./gs-lora_deformable-detr_r50_30e_coco-7x10-fewshot.py']
custom_hooks = [
    dict(type='mmforget.GroupSparseLoRAHook', rank=8, targets='ffn', sparsity=3e-4, init='authors')
]
