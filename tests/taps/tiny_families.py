"""Model configs of all families that the DETR taps read."""

import copy

from mmforget.testing import tiny_detector

C = 16
ATTENTION = {'embed_dims': C, 'num_heads': 2}
WIDE = {('embed_dims', '16'): 256, ('out_channels', '16'): 256, ('num_feats', '8'): 128}
FFN = {'embed_dims': C, 'feedforward_channels': 32, 'ffn_drop': 0.1}
FOCAL = {'type': 'FocalLoss', 'use_sigmoid': True, 'gamma': 2.0, 'alpha': 0.25, 'loss_weight': 2.0}


def tiny_family(family):
    """The model config of another member of the family, from the tiny Deformable DETR's."""
    config = tiny_detector()
    if family == 'DeformableDETR':
        return config
    if family == 'two-stage':
        return widened({**config, 'as_two_stage': True})
    if family == 'plain boxes':
        return {**config, 'with_box_refine': False}
    for key in ('num_feature_levels', 'with_box_refine', 'as_two_stage'):
        del config[key]
    config['type'] = family
    config['backbone']['out_indices'] = (6,)
    config['neck'].update(in_channels=[32], num_outs=1)
    config['positional_encoding'] = {'num_feats': C // 2, 'normalize': True}
    own = {**ATTENTION, 'dropout': 0.1, 'batch_first': True}
    config['encoder'] = {'num_layers': 2, 'layer_cfg': {'self_attn_cfg': own, 'ffn_cfg': FFN}}
    inner, cross = own, own
    config['decoder'] = {'num_layers': 2, 'return_intermediate': True}
    head = {**config['bbox_head'], 'type': f'{family}Head'}
    del head['sync_cls_avg_factor']
    if family == 'DETR':
        head['loss_cls'] = {
            'type': 'CrossEntropyLoss',
            'bg_cls_weight': 0.1,
            'use_sigmoid': False,
            'class_weight': 1.0,
        }
        costs = copy.deepcopy(config['train_cfg']['assigner']['match_costs'])
        costs[0] = {'type': 'ClassificationCost', 'weight': 1.0}
        config['train_cfg'] = {'assigner': {'type': 'HungarianAssigner', 'match_costs': costs}}
    else:
        inner = {**ATTENTION, 'attn_drop': 0.1, 'cross_attn': False}
        cross = {**ATTENTION, 'attn_drop': 0.1, 'cross_attn': True}
    if family == 'DABDETR':
        config.update(with_random_refpoints=False, num_patterns=0)
        config['decoder'].update(
            query_dim=4, query_scale_type='cond_elewise', with_modulated_hw_attn=True
        )
        ffn = {**FFN, 'act_cfg': {'type': 'PReLU'}}
        config['encoder']['layer_cfg']['ffn_cfg'] = ffn
        config['positional_encoding']['temperature'] = 20
    config['decoder']['layer_cfg'] = {
        'self_attn_cfg': inner,
        'cross_attn_cfg': cross,
        'ffn_cfg': config['encoder']['layer_cfg']['ffn_cfg'],
    }
    config['bbox_head'] = head
    return widened(config) if family == 'ConditionalDETR' else config


def widened(config):
    """The same with 256 channels, which MMDetection hard-codes for some position encodings."""
    if isinstance(config, dict):
        return {k: WIDE.get((k, str(v))) or widened(v) for k, v in config.items()}
    return config
