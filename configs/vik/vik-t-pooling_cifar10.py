# ViK-Tiny's macro design with the Pooling mixer on CIFAR-10 at 32 pixels: a floor for vik-t_cifar10.py.
#   python tools/train.py configs/vik/vik-t-pooling_cifar10.py
# 1 CPU thread: 19 min for 12 epochs of 25,000 images, measured 62.45 % top-1 (configs/vik/metafile.yml).
_base_ = 'vik-t_cifar10.py'

model = dict(backbone=dict(token_mixer=dict(_delete_=True, type='Pooling')))
