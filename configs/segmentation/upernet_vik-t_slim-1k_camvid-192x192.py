# UPerNet with ViK-Tiny on CamVid, from scratch.
#   python tools/train.py configs/segmentation/upernet_vik-t_slim-1k_camvid-192x192.py
_base_ = [
    '../_base_/models/upernet_vik-t_slim.py',
    '../_base_/datasets/camvid_192x192.py',
    '../_base_/schedules/small_iters_adamw.py',
    '../_base_/seg_runtime.py',
]
