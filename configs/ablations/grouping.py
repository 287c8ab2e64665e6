# What makes a group:
#   python tools/analysis_tools/compare_methods.py configs/ablations/grouping.py \
#       --scenario configs/_base_/scenarios/garments_single-30.py --split val
base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {
    f'by-{unit}': {'custom_hooks.0.group_by': unit}
    for unit in ('block', 'stage', 'adapter', 'matrix')
}
