# A reference: up to a fifth of each tensor's entries are set to zero, nothing is trained:
#   python tools/train.py configs/coco/random-drop_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.FineTuning'))
custom_hooks = [dict(type='mmforget.RandomDropHook', share=0.2)]
