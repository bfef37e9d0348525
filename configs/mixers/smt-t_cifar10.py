# ViK-Tiny's macro design with SMT's modulation and attention on CIFAR-10 at 32 pixels.
#   python tools/train.py configs/mixers/smt-t_cifar10.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_cifar10.py'

# The authors mix the two in the third stage.
modulation, attention = dict(type='ScaleAwareModulation'), dict(type='SMTAttention')
model = dict(backbone=dict(token_mixer=[modulation, modulation, modulation, attention]))
