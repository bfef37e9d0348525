# ViK-Tiny on 100 classes of Tiny ImageNet at 64 pixels, to pretrain a backbone for small dense tasks.
#   python tools/train.py configs/vik/vik-t_tiny-imagenet100.py
# Data: data/tiny_imagenet100/{train,val}/<class>/*.JPEG. Not trained to the end yet, no result is known.
_base_ = [
    '../_base_/models/vik.py',
    '../_base_/datasets/tiny-imagenet100_bs128.py',
    '../_base_/schedules/small_bs128_adamw.py',
    '../_base_/default_runtime.py',
]

# Stem and patches stay those of larger images: dense tasks start from these weights.
model = dict(
    backbone=dict(arch='tiny', img_size=64, drop_path_rate=0.0, layer_scale_init_value=1.0),
    head=dict(num_classes=100, in_channels=256),
)
train_cfg = dict(max_epochs=30, val_interval=5)
