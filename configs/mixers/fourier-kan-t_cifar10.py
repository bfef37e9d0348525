# ViK-Tiny with a Fourier KAN for its channel MLP on CIFAR-10 at 32 pixels.
#   python tools/train.py configs/mixers/fourier-kan-t_cifar10.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_cifar10.py'

# A connection has 8 to 10 coefficients: an eighth of the hidden channels has about the weights of the MLP.
model = dict(backbone=dict(mlp=dict(type='FourierKAN'), mlp_ratio=0.5))
