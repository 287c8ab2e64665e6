# LIRF: the upper half of the transformer stays, attention below it moves away from the teacher's:
#   python tools/train.py configs/recognition/lirf_vit_100s_garment-sprites-4x2.py
_base_ = ['../_base_/forgetting/full_100s_garment-sprites-4x2.py']
train_cfg = dict(method=dict(type='mmforget.LIRF'))
custom_hooks = [
    dict(
        type='mmforget.FullFineTuningHook',
        frozen=[r'backbone\..*blocks\.[345]\..*', r'backbone\..*norm\..*', r'head\..*'],
    )
]
