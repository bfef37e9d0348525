# 40,000 iterations of 32 images: PoolFormer's AdamW settings for Semantic FPN, with layer-wise decay.
_base_ = '../optimizers/adamw_vik.py'

optim_wrapper = dict(
    type='AmpOptimWrapper',  # tools/train.py takes float32 where there is no GPU, and says so
    optimizer=dict(lr=2e-4, weight_decay=1e-4),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.95),
)
param_scheduler = [dict(type='PolyLR', power=0.9, by_epoch=False, begin=0, end=40000, eta_min=0.0)]
train_cfg = dict(type='ResumableIterLoop', max_iters=40000, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=32)
