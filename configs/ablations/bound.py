# The bound of the forgetting loss:
#   python tools/analysis_tools/compare_methods.py configs/ablations/bound.py \
#       --scenario configs/_base_/scenarios/garments_single-30.py --split val
base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {f'bound-{bound}': {'train_cfg.method.bound': bound} for bound in (1, 3, 7, 15, 30)}
