# How many images there are to forget and to retain from:
#   python tools/analysis_tools/compare_methods.py configs/ablations/images.py \
#       --scenario configs/_base_/scenarios/garments_single-30.py --split val
base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {
    f'{100 * share:g}-percent': {
        'train_cfg.scenario.forget.ratio': share,
        'train_cfg.scenario.retain.ratio': share,
    }
    for share in (0.01, 0.03, 0.1, 0.3, 1.0)
}
