# Which groups live, by the share of the best gain that a group must have:
#   python tools/analysis_tools/compare_methods.py configs/ablations/sparsity_path.py \
#       --scenario configs/_base_/scenarios/garments_single-30.py --split val
base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {
    f'strength-{strength:g}': {
        'custom_hooks.0.sparsity': dict(
            _delete_=True, type='GroupTrial', strength=strength, steps=8
        )
    }
    for strength in (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
}
