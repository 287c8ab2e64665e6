# FDR: the distance from the retain set's logits is held:
#   python tools/train.py configs/recognition/fdr_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.FDR', strength=40.0, labels='random'))
