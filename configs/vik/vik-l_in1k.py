# ViK-Large on ImageNet-1K, the recipe of ViK-Small.
#   tools/dist_train.sh configs/vik/vik-l_in1k.py 8
# 8 GPUs x 128 images, 310 epochs. An arch of this project; not trained here, no result is known.
_base_ = [
    '../_base_/models/vik.py',
    '../_base_/datasets/imagenet_bs128_vik_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_vik.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.3, layer_scale_init_value=1e-6),
    head=dict(in_channels=768),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
