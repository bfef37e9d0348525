# Mask R-CNN with PoolFormer's mixer in ViK-Tiny on car parts, from scratch.
#   python tools/train.py configs/detection/mask-rcnn_vik-t-pooling_fpn-small_12e_carparts.py
_base_ = 'mask-rcnn_vik-t_fpn-small_12e_carparts.py'

model = dict(backbone=dict(token_mixer=dict(type='Pooling')))
