# A small ViK on the built-in shapes at 64 pixels; `make demo` runs it whole.
#   python tools/data/make_shapes.py data/shapes && python tools/train.py configs/vik/vik-demo_shapes.py
# 2 CPU cores: 3 min, measured 95.2 % top-1 (configs/vik/metafile.yml).
_base_ = [
    '../_base_/models/vik_32px.py',
    '../_base_/datasets/shapes_bs32.py',
    '../_base_/schedules/small_bs128_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, depths=(1, 1, 1), embed_dims=(32, 64, 128)),
        out_indices=(2,),
        # Stride 4 gives 64-pixel images the maps that the base has for 32.
        img_size=64,
        stem=dict(kernel_size=7, stride=4, padding=2),
        layer_scale_init_value=1.0,
    ),
    head=dict(num_classes=8, in_channels=128),
)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
train_cfg = dict(max_epochs=8)
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(logger=dict(interval=50))
custom_hooks = [dict(type='ProgressHook')]
