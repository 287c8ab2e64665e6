# L2 towards the weights before each task:
#   python tools/train.py configs/recognition/l2_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.L2', strength=0.05, labels='random'))
