# Mask R-CNN with ResNet-18 on car parts, from scratch.
#   python tools/train.py configs/detection/mask-rcnn_r18_fpn-slim_12e_carparts.py
_base_ = 'mask-rcnn_vik-t_fpn-slim_12e_carparts.py'

model = dict(
    backbone=dict(
        _delete_=True, type='ResNet', depth=18, out_indices=(0, 1, 2, 3), norm_cfg=dict(type='BN'), init_cfg=None
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
