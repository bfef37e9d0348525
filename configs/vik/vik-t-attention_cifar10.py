# ViK-Tiny's macro design with softmax attention among all pixels on CIFAR-10 at 32 pixels.
#   python tools/train.py configs/vik/vik-t-attention_cifar10.py
# Not trained here, no result is known.
_base_ = 'vik-t_cifar10.py'

model = dict(backbone=dict(token_mixer=dict(_delete_=True, type='SelfAttention', head_dims=32)))
