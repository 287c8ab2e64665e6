# EWC; fisher='batch' squares batches' gradients as the authors do:
#   python tools/train.py configs/coco/ewc_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/full_30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.EWC', strength=10.0, fisher='image'))
