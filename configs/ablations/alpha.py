# α, the strength of the paper's penalty:
#   python tools/analysis_tools/compare_methods.py configs/ablations/alpha.py \
#       --scenario configs/_base_/scenarios/garments_single-30.py --split val
base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {
    f'alpha-{alpha:g}': {'custom_hooks.0.sparsity': alpha}
    for alpha in (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
}
