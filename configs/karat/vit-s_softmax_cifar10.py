# ViT-Small with softmax attention on CIFAR-10 at 224 pixels.
#   tools/dist_train.sh configs/karat/vit-s_softmax_cifar10.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 81.08 % top-1; not trained here.
_base_ = [
    '../_base_/models/vit_karat.py',
    '../_base_/datasets/cifar10_bs128_224.py',
    '../_base_/schedules/bs1024_100e_adamw_karat.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='small'), head=dict(num_classes=10, in_channels=384))
