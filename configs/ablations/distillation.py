# λ, the strength with which our variant holds what it is not asked to forget, over three tasks:
#   python tools/analysis_tools/compare_methods.py configs/ablations/distillation.py --split val
base = 'configs/garments/gs-lora-distilled_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {
    f'lambda-{strength:g}': {'train_cfg.method.strength': strength}
    for strength in (0.0, 0.03, 0.1, 0.3, 1.0)
}
