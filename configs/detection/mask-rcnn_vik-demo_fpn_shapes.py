# Mask R-CNN with a small ViK on the built-in shapes at 64 pixels.
#   python tools/data/make_shapes.py data/shapes
#   python tools/train.py configs/detection/mask-rcnn_vik-demo_fpn_shapes.py
_base_ = [
    '../_base_/models/mask-rcnn_vik-t_slim.py',
    '../_base_/datasets/shapes_instance.py',
    '../_base_/schedules/small_epochs_adamw.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(1, 1, 1, 1), embed_dims=(32, 64, 128, 160)), img_size=64),
    neck=dict(in_channels=[32, 64, 128, 160]),
    rpn_head=dict(anchor_generator=dict(scales=[3])),
    roi_head=dict(bbox_head=dict(num_classes=8), mask_head=dict(num_classes=8)),
)
train_cfg = dict(max_epochs=4, val_interval=4)
auto_scale_lr = dict(base_batch_size=8)
custom_hooks = [dict(type='ProgressHook')]
