# A reference for the ablations, in which three of ten classes go in one step:
#   python tools/train.py configs/garments/oracle_deformable-detr_mobilenetv2_3k_garments-single-30.py
_base_ = ['./oracle_deformable-detr_mobilenetv2_3k_garments-continual.py']
train_cfg = dict(scenario=dict(tasks=[0.3]))
