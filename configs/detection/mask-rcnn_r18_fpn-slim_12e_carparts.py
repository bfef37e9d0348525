# Mask R-CNN with ResNet-18 on car parts, from scratch.
#   python tools/train.py configs/detection/mask-rcnn_r18_fpn-slim_12e_carparts.py
_base_ = [
    '../_base_/models/mask-rcnn_vik-t_slim.py',
    '../_base_/models/resnet18.py',
    '../_base_/datasets/carparts_instance.py',
    '../_base_/schedules/small_epochs_adamw.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(_base_.resnet18, _delete_=True),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
