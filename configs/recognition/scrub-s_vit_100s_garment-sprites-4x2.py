# SCRUB with smoothing:
#   python tools/train.py configs/recognition/scrub-s_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.SCRUBS', cycles=10, smoothing=0.05))
