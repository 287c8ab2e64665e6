# DER; teacher='untrained' is what the authors' code distils from:
#   python tools/train.py configs/coco/der_deformable-detr_r50_30e_coco-7x10-fewshot.py
_base_ = ['../_base_/forgetting/full_30e_coco-7x10-fewshot.py']
train_cfg = dict(
    method=dict(
        type='mmforget.DER',
        # 0.001 of the sum over a GPU's four images.
        strength=0.004,
        teacher='loaded',
    )
)
