# UPerNet with PoolFormer's mixer in ViK-Tiny on the semantic maps of car parts, from scratch.
#   python tools/train.py configs/segmentation/upernet_vik-t-pooling_slim-1k_carparts-192x192.py
_base_ = [
    '../_base_/models/upernet_vik-t_slim.py',
    '../_base_/datasets/carparts_seg_192x192.py',
    '../_base_/schedules/small_iters_adamw.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    backbone=dict(token_mixer=dict(type='Pooling')),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
)
