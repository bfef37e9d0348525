# 160,000 iterations of 16 images: ConvNeXt's AdamW settings for UPerNet.
_base_ = 'ade20k_40k_adamw.py'

optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.05), paramwise_cfg=dict(layer_decay_rate=0.9))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, by_epoch=False, begin=1500, end=160000, eta_min=0.0),
]
train_cfg = dict(max_iters=160000, val_interval=16000)

auto_scale_lr = dict(base_batch_size=16)
