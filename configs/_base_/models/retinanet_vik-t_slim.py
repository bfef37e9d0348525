# ViK-Tiny under a slim RetinaNet, from scratch: what two CPU cores train in minutes.
_base_ = 'retinanet_vik_fpn.py'

model = dict(
    # From scratch in few epochs: 1e-5 would keep the blocks asleep.
    backbone=dict(arch='tiny', img_size=224, drop_path_rate=0.0, layer_scale_init_value=1.0, init_cfg=None),
    neck=dict(in_channels=[64, 160, 256], out_channels=64, norm_cfg=dict(type='GN', num_groups=8)),
    bbox_head=dict(
        num_classes=18,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=8),
        anchor_generator=dict(octave_base_scale=3),
    ),
)
