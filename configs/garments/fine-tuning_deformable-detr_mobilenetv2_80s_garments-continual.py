# Fine-tuning on the retain set: what is unlabelled there is background:
#   python tools/train.py configs/garments/fine-tuning_deformable-detr_mobilenetv2_80s_garments-continual.py
_base_ = ['../_base_/forgetting/full_80s_garments-continual.py']
train_cfg = dict(method=dict(type='mmforget.FineTuning'))
