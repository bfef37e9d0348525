# ViT-Base with softmax attention on CIFAR-100 at 224 pixels.
#   tools/dist_train.sh configs/karat/vit-b_softmax_cifar100.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 58.07 % top-1; not trained here.
_base_ = [
    '../_base_/models/vit_karat.py',
    '../_base_/datasets/cifar100_bs128_224.py',
    '../_base_/schedules/bs1024_100e_adamw_karat.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='base'), head=dict(num_classes=100, in_channels=768))
