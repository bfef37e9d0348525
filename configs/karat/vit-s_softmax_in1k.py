# ViT-Small with softmax attention on ImageNet-1K at 224 pixels.
#   tools/dist_train.sh configs/karat/vit-s_softmax_in1k.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 70.50 % top-1; not trained here.
_base_ = [
    '../_base_/models/vit_karat.py',
    '../_base_/datasets/imagenet_bs128_vik_224.py',
    '../_base_/schedules/bs1024_100e_adamw_karat.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
