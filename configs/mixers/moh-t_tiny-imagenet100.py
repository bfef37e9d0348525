# ViK-Tiny's macro design with mixture-of-head attention on 100 classes of Tiny ImageNet at 64 pixels.
#   python tools/train.py configs/mixers/moh-t_tiny-imagenet100.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_tiny-imagenet100.py'

model = dict(backbone=dict(token_mixer=dict(type='MixtureOfHeadAttention')))
custom_hooks = [dict(type='BalanceLossHook')]
