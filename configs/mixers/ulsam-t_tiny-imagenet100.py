# ViK-Tiny's macro design with subspace attention on 100 classes of Tiny ImageNet at 64 pixels.
#   python tools/train.py configs/mixers/ulsam-t_tiny-imagenet100.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_tiny-imagenet100.py'

# The weights are rescaled: as they are released they shrink with the map.
model = dict(backbone=dict(token_mixer=dict(type='SubspaceAttention', rescale=True)))
