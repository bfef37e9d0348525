# ViK-Tiny widened to the parameters of ViT-Tiny, on CIFAR-10 at 32 pixels, to compare with configs/karat.
#   python tools/train.py configs/vik/vik-t-5m_cifar10.py --amp --cfg-options optim_wrapper.dtype=bfloat16
# 1 CPU thread: 22 min for 5 epochs of 25,000 images, measured 55.83 % top-1 (configs/vik/metafile.yml).
_base_ = 'vik-t_cifar10.py'

model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(2, 2, 4, 2), embed_dims=(48, 96, 224, 384))),
    head=dict(in_channels=384),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=1.0))  # as configs/karat/*-32px.py
train_cfg = dict(max_epochs=5)
