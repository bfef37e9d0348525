# Semantic FPN with PoolFormer's mixer in ViK-Tiny on the semantic maps of car parts, from scratch.
#   python tools/train.py configs/segmentation/fpn_vik-t-pooling_slim-1k_carparts-192x192.py
_base_ = 'fpn_vik-t_slim-1k_carparts-192x192.py'

model = dict(backbone=dict(token_mixer=dict(type='Pooling')))
