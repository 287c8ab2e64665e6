# EWC: weights are held by their Fisher information:
#   python tools/train.py configs/recognition/ewc_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.EWC', strength=3.0, labels='random'))
