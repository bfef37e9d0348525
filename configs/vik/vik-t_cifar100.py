# ViK-Tiny on CIFAR-100 at 32 pixels.
#   python tools/train.py configs/vik/vik-t_cifar100.py
# 1 CPU thread, about 80 min for 12 epochs of 50,000 images. Not trained here, no result is known.
_base_ = [
    '../_base_/models/vik_32px.py',
    '../_base_/datasets/cifar100_bs128.py',
    '../_base_/schedules/small_bs128_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=100))
