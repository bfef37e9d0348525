# ViK-Tiny on the built-in shapes at 64 pixels; `make demo` runs it whole.
#   python tools/data/make_shapes.py data/shapes && python tools/train.py configs/vik/vik-t_shapes.py
_base_ = [
    '../_base_/models/vik_32px.py',
    '../_base_/datasets/shapes_bs64.py',
    '../_base_/schedules/small_bs128_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # Stride 4 gives 64-pixel images the maps that the base has for 32.
    backbone=dict(img_size=64, stem=dict(kernel_size=7, stride=4, padding=2)),
    head=dict(num_classes=8),
)
train_cfg = dict(max_epochs=10)
default_hooks = dict(logger=dict(interval=20))
custom_hooks = [dict(type='ProgressHook')]
