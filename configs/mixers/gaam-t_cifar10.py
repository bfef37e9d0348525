# ViK-Tiny's macro design with Gaussian adaptive attention on CIFAR-10 at 32 pixels.
#   python tools/train.py configs/mixers/gaam-t_cifar10.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_cifar10.py'

# The weights are rescaled: as they are released they shrink with the map.
model = dict(backbone=dict(token_mixer=dict(_delete_=True, type='GaussianAdaptiveAttention', rescale=True)))
