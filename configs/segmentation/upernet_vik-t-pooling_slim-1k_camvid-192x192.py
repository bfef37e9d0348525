# UPerNet with PoolFormer's mixer in ViK-Tiny on CamVid, from scratch.
#   python tools/train.py configs/segmentation/upernet_vik-t-pooling_slim-1k_camvid-192x192.py
_base_ = 'upernet_vik-t_slim-1k_camvid-192x192.py'

model = dict(backbone=dict(token_mixer=dict(type='Pooling')))
