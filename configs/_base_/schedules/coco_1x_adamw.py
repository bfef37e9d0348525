# 12 epochs on COCO: PoolFormer's AdamW settings (16 images a step), with layer-wise decay as ConvNeXt has it.
_base_ = '../optimizers/adamw_vik.py'

optim_wrapper = dict(
    type='AmpOptimWrapper',  # tools/train.py takes float32 where there is no GPU, and says so
    optimizer=dict(lr=1e-4),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.95),
)
max_epochs = 12
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=16)
