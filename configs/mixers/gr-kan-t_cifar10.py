# ViK-Tiny with KAT's GR-KAN for its channel MLP on CIFAR-10 at 32 pixels.
#   python tools/train.py configs/mixers/gr-kan-t_cifar10.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_cifar10.py'

model = dict(backbone=dict(mlp=dict(type='GRKAN')))
