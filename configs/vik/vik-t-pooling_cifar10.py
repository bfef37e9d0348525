# ViK-Tiny's macro design with the Pooling mixer on CIFAR-10 at 32 pixels: a floor for vik-t_cifar10.py.
#   python tools/train.py configs/vik/vik-t-pooling_cifar10.py
_base_ = 'vik-t_cifar10.py'

model = dict(backbone=dict(token_mixer=dict(_delete_=True, type='Pooling')))
