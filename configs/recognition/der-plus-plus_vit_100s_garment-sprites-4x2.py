# DER++: logits and labels of the retain set:
#   python tools/train.py configs/recognition/der-plus-plus_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(
    method=dict(type='mmforget.DERPlusPlus', strength=0.05, retain_weight=0.5, labels='random')
)
