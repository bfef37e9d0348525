# 100 epochs, as the paper; the rest of its recipe is not public, and this is ViK's: AdamW, 5 epochs of warm-up, cosine.
_base_ = '../optimizers/adamw_vik.py'

optim_wrapper = dict(
    type='AmpOptimWrapper',  # tools/train.py takes float32 where there is no GPU, and says so
    paramwise_cfg=dict(
        custom_keys={
            '.cls_token': dict(decay_mult=0.0),
            '.pos_embed': dict(decay_mult=0.0),
            '.basis.shapes': dict(decay_mult=0.0),
            'operator.scale': dict(decay_mult=0.0),  # it starts at one
        },
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=95, eta_min=1e-5, by_epoch=True, begin=5, end=100),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# 8 GPUs x 128 images.
auto_scale_lr = dict(base_batch_size=1024)
