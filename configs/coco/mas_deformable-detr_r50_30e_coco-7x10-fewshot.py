# MAS: weights are held by what the logits owe to them:
#   python tools/train.py configs/coco/mas_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/full_30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.MAS', strength=0.1))
