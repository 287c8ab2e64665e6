# Forgotten images get the names of retained classes:
#   python tools/train.py configs/recognition/random-labels_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.RandomLabels'))
