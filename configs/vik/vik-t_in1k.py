# ViK-Tiny on ImageNet-1K, the recipe of ViK-Small.
#   tools/dist_train.sh configs/vik/vik-t_in1k.py 8
# 8 GPUs x 128 images, 310 epochs. An arch of this project; not trained here, no result is known.
_base_ = 'vik-s_in1k.py'

model = dict(
    backbone=dict(arch='tiny'),
    head=dict(in_channels=256),
)
