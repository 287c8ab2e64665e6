# DER++; teacher='untrained' is what the authors' code distils from:
#   python tools/train.py configs/coco/der-plus-plus_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/full_30e_coco-7x10-fewshot.py']
train_cfg = dict(
    method=dict(type='mmforget.DERPlusPlus', strength=0.004, retain_weight=0.1, teacher='loaded')
)
