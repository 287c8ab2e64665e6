# Forgotten objects get the names of retained classes:
#   python tools/train.py configs/coco/random-labels_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/full_30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.RandomLabels'))
