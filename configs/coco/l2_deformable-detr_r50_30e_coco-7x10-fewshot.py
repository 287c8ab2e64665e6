# L2 towards the weights before each task:
#   python tools/train.py configs/coco/l2_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/full_30e_coco-7x10-fewshot.py']
train_cfg = dict(method=dict(type='mmforget.L2', strength=0.01))
