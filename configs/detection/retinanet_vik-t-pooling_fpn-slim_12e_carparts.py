# RetinaNet with PoolFormer's mixer in ViK-Tiny on car parts, from scratch.
#   python tools/train.py configs/detection/retinanet_vik-t-pooling_fpn-slim_12e_carparts.py
_base_ = [
    '../_base_/models/retinanet_vik-t_slim.py',
    '../_base_/datasets/carparts_detection.py',
    '../_base_/schedules/small_epochs_adamw.py',
    '../_base_/det_runtime.py',
]

model = dict(backbone=dict(token_mixer=dict(type='Pooling')))
