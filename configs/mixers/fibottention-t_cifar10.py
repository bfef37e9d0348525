# ViK-Tiny's macro design with Fibottention on CIFAR-10 at 32 pixels.
#   python tools/train.py configs/mixers/fibottention-t_cifar10.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_cifar10.py'

model = dict(backbone=dict(token_mixer=dict(_delete_=True, type='Fibottention')))
