# DER: the retain set's logits are held:
#   python tools/train.py configs/recognition/der_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.DER', strength=0.05, labels='random'))
