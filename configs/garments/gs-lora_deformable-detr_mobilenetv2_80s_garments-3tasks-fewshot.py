# The same with 64 retain images instead of 10 % of the training set:
#   python tools/train.py configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-3tasks-fewshot.py
_base_ = ['./gs-lora_deformable-detr_mobilenetv2_80s_garments-3tasks.py']
train_cfg = dict(scenario=dict(retain=dict(images=64)))
