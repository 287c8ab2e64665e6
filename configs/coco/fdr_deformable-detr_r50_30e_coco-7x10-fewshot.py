# FDR; axis='queries' and teacher='untrained' are the authors':
#   python tools/train.py configs/coco/fdr_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/full_30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.FDR', strength=5.0, axis='classes', teacher='loaded'))
