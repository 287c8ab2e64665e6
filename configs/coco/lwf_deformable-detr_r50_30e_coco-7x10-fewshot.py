# LwF, which the authors have for classification only:
#   python tools/train.py configs/coco/lwf_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/full_30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.LwF', strength=0.5, retain_weight=2.0))
