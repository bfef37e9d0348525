# Semantic FPN with ResNet-18 on the semantic maps of car parts, from scratch.
#   python tools/train.py configs/segmentation/fpn_r18_slim-1k_carparts-192x192.py
_base_ = [
    '../_base_/models/fpn_vik-t_slim.py',
    '../_base_/models/resnet18.py',
    '../_base_/datasets/carparts_seg_192x192.py',
    '../_base_/schedules/small_iters_adamw.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    backbone=dict(_base_.resnet18, _delete_=True),
    neck=dict(in_channels=[64, 128, 256, 512]),
    decode_head=dict(num_classes=19),
)
