# Semantic FPN with a small ViK on the built-in shapes at 64 pixels.
#   python tools/data/make_shapes.py data/shapes
#   python tools/train.py configs/segmentation/fpn_vik-demo_shapes.py
_base_ = [
    '../_base_/models/fpn_vik-t_slim.py',
    '../_base_/datasets/shapes_seg.py',
    '../_base_/schedules/small_iters_adamw.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(arch=dict(_delete_=True, depths=(1, 1, 1, 1), embed_dims=(32, 64, 128, 160)), img_size=64),
    neck=dict(in_channels=[32, 64, 128, 160]),
    decode_head=dict(num_classes=9),
    test_cfg=dict(_delete_=True, mode='whole'),
)
train_cfg = dict(max_iters=3000, val_interval=3000)
auto_scale_lr = dict(base_batch_size=16)
custom_hooks = [dict(type='ProgressHook')]
