# ViK-Base on ImageNet-1K, the recipe of ViK-Small.
#   tools/dist_train.sh configs/vik/vik-b_in1k.py 8
# 8 GPUs x 128 images, 310 epochs. The release has this arch, the paper no result for it; not trained here.
_base_ = 'vik-s_in1k.py'

model = dict(backbone=dict(arch='base'))
