# ViK-Tiny with an efficient KAN for its channel MLP on 100 classes of Tiny ImageNet at 64 pixels.
#   python tools/train.py configs/mixers/efficient-kan-t_tiny-imagenet100.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_tiny-imagenet100.py'

# A connection has 8 to 10 coefficients: an eighth of the hidden channels has about the weights of the MLP.
model = dict(backbone=dict(mlp=dict(type='EfficientKAN'), mlp_ratio=0.5))
