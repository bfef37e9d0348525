# ViK-Tiny's macro design with polyphase anchoring around window attention on 100 classes of Tiny ImageNet at 64 pixels.
#   python tools/train.py configs/mixers/polyphase-t_tiny-imagenet100.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_tiny-imagenet100.py'

# Windows of 4, which divide the maps: only then a shift changes nothing.
model = dict(
    backbone=dict(
        token_mixer=dict(
            type='PolyphaseAnchoring',
            mixer=dict(type='MaxViTAttention', partition='block', window_size=4),
        )
    )
)
