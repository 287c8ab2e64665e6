# Adapters on feed-forward networks, on attention, on both:
#   python tools/analysis_tools/compare_methods.py configs/ablations/targets.py \
#       --scenario configs/_base_/scenarios/garments_single-30.py --split val
base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {
    name: {'custom_hooks.0.targets': targets}
    for name, targets in (
        ('ffn', 'ffn'),
        ('attention', 'attention'),
        ('ffn-and-attention', ['ffn', 'attention']),
    )
}
