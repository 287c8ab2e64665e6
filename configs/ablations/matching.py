# Which scores of the forget stream are pushed:
#   python tools/analysis_tools/compare_methods.py configs/ablations/matching.py \
#       --scenario configs/_base_/scenarios/garments_single-30.py --split val
base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {
    'all-queries': {},
    'matched': {'train_cfg.method.matched_only': True},
    'true-class': {'train_cfg.method.true_class_only': True},
    'true-class-bound-each': {
        'train_cfg.method.true_class_only': True,
        'train_cfg.method.bound_each': True,
    },
}
