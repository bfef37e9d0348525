# ViK-Tiny under a slim Semantic FPN, from scratch: what two CPU cores train in minutes.
_base_ = 'fpn_vik.py'

norm_cfg = dict(type='GN', num_groups=8)
model = dict(
    data_preprocessor=dict(size=(192, 192)),
    # From scratch in few epochs: 1e-5 would keep the blocks asleep.
    backbone=dict(arch='tiny', img_size=192, drop_path_rate=0.0, layer_scale_init_value=1.0, init_cfg=None),
    neck=dict(in_channels=[32, 64, 160, 256], out_channels=48, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=[48, 48, 48, 48],
        channels=48,
        num_classes=11,
        norm_cfg=dict(_delete_=True, **norm_cfg),
    ),
    # In windows of the size it was trained on: whole frames do worse, see docs/model_zoo.md.
    test_cfg=dict(mode='slide', crop_size=(192, 192), stride=(144, 144)),
)
