# β, the weight of the forgetting loss:
#   python tools/analysis_tools/compare_methods.py configs/ablations/beta.py \
#       --scenario configs/_base_/scenarios/garments_single-30.py --split val
base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {
    f'beta-{beta:g}': {'train_cfg.method.forget_weight': beta}
    for beta in (0.0, 0.03, 0.1, 0.3, 1.0)
}
