# UPerNet with ResNet-18 on the semantic maps of car parts, from scratch.
#   python tools/train.py configs/segmentation/upernet_r18_slim-1k_carparts-192x192.py
_base_ = [
    '../_base_/models/upernet_vik-t_slim.py',
    '../_base_/models/resnet18.py',
    '../_base_/datasets/carparts_seg_192x192.py',
    '../_base_/schedules/small_iters_adamw.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    backbone=dict(_base_.resnet18, _delete_=True),
    decode_head=dict(in_channels=[64, 128, 256, 512], num_classes=19),
    auxiliary_head=dict(in_channels=256, num_classes=19),
)
