# UPerNet with ResNet-18 on the semantic maps of car parts, from scratch.
#   python tools/train.py configs/segmentation/upernet_r18_slim-1k_carparts-192x192.py
_base_ = 'upernet_vik-t_slim-1k_carparts-192x192.py'

model = dict(
    backbone=dict(
        _delete_=True, type='ResNet', depth=18, out_indices=(0, 1, 2, 3), norm_cfg=dict(type='BN'), init_cfg=None
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
