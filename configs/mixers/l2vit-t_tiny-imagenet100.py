# ViK-Tiny's macro design with L2ViT's two attentions on 100 classes of Tiny ImageNet at 64 pixels.
#   python tools/train.py configs/mixers/l2vit-t_tiny-imagenet100.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_tiny-imagenet100.py'

# The authors alternate the two from block to block, this from stage to stage.
window = dict(type='L2ViTWindowAttention')
everywhere = dict(type='L2ViTGlobalAttention')
model = dict(backbone=dict(token_mixer=[window, everywhere, window, everywhere]))
