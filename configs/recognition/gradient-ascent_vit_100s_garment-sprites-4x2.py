# Gradient ascent on the forget set:
#   python tools/train.py configs/recognition/gradient-ascent_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.GradientAscent'))
