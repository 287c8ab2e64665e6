# Rank of the adapters:
#   python tools/analysis_tools/compare_methods.py configs/ablations/rank.py \
#       --scenario configs/_base_/scenarios/garments_single-30.py --split val
base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {f'rank-{rank}': {'custom_hooks.0.rank': rank} for rank in (1, 2, 4, 8, 16, 32)}
