# The paper's penalty against forms that end at exact zeros:
#   python tools/analysis_tools/compare_methods.py configs/ablations/sparsity.py \
#       --scenario configs/_base_/scenarios/garments_single-30.py --split val
base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-continual.py'
variants = {
    'none': {'custom_hooks.0.sparsity': None},
    # The paper's.
    'penalty-ab': {'custom_hooks.0.sparsity': 3e-4},
    'penalty-b': {
        'custom_hooks.0.sparsity': dict(_delete_=True, type='GroupPenalty', strength=3e-3, kind='b')
    },
    # In Adam's metric, until a group dies.
    'threshold': {
        'custom_hooks.0.sparsity': dict(_delete_=True, type='GroupSelection', strength=0.5)
    },
    'ranking': {'custom_hooks.0.sparsity': dict(_delete_=True, type='GroupRanking', strength=0.5)},
    'trials': {
        'custom_hooks.0.sparsity': dict(_delete_=True, type='GroupTrial', strength=0.7, patience=2)
    },
}
