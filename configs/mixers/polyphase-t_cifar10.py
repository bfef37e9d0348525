# ViK-Tiny's macro design with polyphase anchoring around window attention on CIFAR-10 at 32 pixels.
#   python tools/train.py configs/mixers/polyphase-t_cifar10.py
# Not trained here, no result is known.
_base_ = '../vik/vik-t_cifar10.py'

# Windows of 4, which divide the maps: only then a shift changes nothing.
model = dict(
    backbone=dict(
        token_mixer=dict(
            _delete_=True,
            type='PolyphaseAnchoring',
            mixer=dict(type='MaxViTAttention', partition='block', window_size=4),
        )
    )
)
