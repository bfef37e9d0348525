# ViK-Tiny with KAT's GR-KAN for its channel MLP on 100 classes of Tiny ImageNet at 64 pixels.
#   python tools/train.py configs/mixers/gr-kan-t_tiny-imagenet100.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_tiny-imagenet100.py'

model = dict(backbone=dict(mlp=dict(type='GRKAN')))
