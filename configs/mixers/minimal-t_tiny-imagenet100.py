# ViK-Tiny's macro design with the minimal transformer on 100 classes of Tiny ImageNet at 64 pixels.
#   python tools/train.py configs/mixers/minimal-t_tiny-imagenet100.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_tiny-imagenet100.py'

model = dict(backbone=dict(token_mixer=dict(type='MinimalAttention')))
