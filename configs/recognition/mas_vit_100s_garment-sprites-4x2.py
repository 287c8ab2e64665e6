# MAS: weights are held by what the logits owe to them:
#   python tools/train.py configs/recognition/mas_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.MAS', strength=0.005, labels='random'))
