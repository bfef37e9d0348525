# ViK-Tiny for 32-pixel images: a stem of stride 2, and 4x4 patches, which fit maps of 16, 8 and 4 pixels.
_base_ = 'vik.py'

model = dict(
    backbone=dict(
        arch='tiny',
        img_size=32,
        stem=dict(kernel_size=3, stride=2, padding=1),
        token_mixer=dict(type='MultiPatchRBFKAN', patch_size=4, num_grids=8, rank=64),
        drop_path_rate=0.0,
        # 1e-5 is made for 300 epochs; a dozen do not bring the blocks to life from there.
        layer_scale_init_value=0.1,
    ),
    head=dict(num_classes=10, in_channels=256),
)
