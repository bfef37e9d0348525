# ViK-Small on ImageNet-1K, the recipe of the authors' release.
#   tools/dist_train.sh configs/vik/vik-s_in1k.py 8
# 8 GPUs x 128 images, 310 epochs. The paper reports 76.5 % top-1 (from 4 GPUs x 256); not trained here.
_base_ = [
    '../_base_/models/vik.py',
    '../_base_/datasets/imagenet_bs128_vik_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_vik.py',
    '../_base_/default_runtime.py',
]

model = dict(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
