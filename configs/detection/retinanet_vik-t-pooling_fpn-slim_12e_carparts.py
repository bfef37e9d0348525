# RetinaNet with PoolFormer's mixer in ViK-Tiny on car parts, from scratch.
#   python tools/train.py configs/detection/retinanet_vik-t-pooling_fpn-slim_12e_carparts.py
_base_ = 'retinanet_vik-t_fpn-slim_12e_carparts.py'

model = dict(backbone=dict(token_mixer=dict(type='Pooling')))
