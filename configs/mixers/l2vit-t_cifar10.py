# ViK-Tiny's macro design with L2ViT's two attentions on CIFAR-10 at 32 pixels.
#   python tools/train.py configs/mixers/l2vit-t_cifar10.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_cifar10.py'

# The authors alternate the two from block to block, this from stage to stage.
window = dict(type='L2ViTWindowAttention', window_size=4)
everywhere = dict(type='L2ViTGlobalAttention')
model = dict(backbone=dict(token_mixer=[window, everywhere, window, everywhere]))
