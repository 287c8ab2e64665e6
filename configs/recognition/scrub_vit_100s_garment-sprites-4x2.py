# SCRUB: away from the teacher on the forget set, back to it on the retain set:
#   python tools/train.py configs/recognition/scrub_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.SCRUB', cycles=10))
