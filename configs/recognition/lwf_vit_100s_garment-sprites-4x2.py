# LwF: distillation on the forget set:
#   python tools/train.py configs/recognition/lwf_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.LwF', strength=0.5, retain_weight=2.0, labels='random'))
