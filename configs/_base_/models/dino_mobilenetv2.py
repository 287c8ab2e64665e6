# A small DINO that trains on two CPU cores: as the Deformable DETR, with denoising queries.
_base_ = ['./deformable-detr_mobilenetv2.py']
# MMDetection's DINO encodes boxes in 256 channels, whatever a config says.
channels = 256
model = dict(
    type='DINO',
    as_two_stage=True,
    # Twice the channels make the finest map, stride 8, too dear.
    num_feature_levels=2,
    backbone=dict(out_indices=(4, 6)),
    neck=dict(in_channels=[96, 320], out_channels=channels, num_outs=2),
    encoder=dict(
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=channels, num_levels=2),
            ffn_cfg=dict(embed_dims=channels),
        )
    ),
    decoder=dict(
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=channels),
            cross_attn_cfg=dict(embed_dims=channels, num_levels=2),
            ffn_cfg=dict(embed_dims=channels),
        )
    ),
    positional_encoding=dict(num_feats=channels // 2, offset=0.0, temperature=20),
    bbox_head=dict(type='DINOHead', embed_dims=channels, loss_cls=dict(loss_weight=1.0)),
    dn_cfg=dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=30),
    ),
)
