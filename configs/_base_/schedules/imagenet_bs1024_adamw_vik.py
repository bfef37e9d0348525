# The schedule of the authors' release: AdamW, 5 epochs of warm-up, cosine to 300 epochs, 10 epochs at the last rate.
optim_wrapper = dict(
    type='AmpOptimWrapper',  # tools/train.py takes float32 where there is no GPU, and says so
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        flat_decay_mult=0.0,  # 1-D parameters
        custom_keys={
            '.centers': dict(decay_mult=0.0),
            '.log_widths': dict(decay_mult=0.0),
            '.numerator': dict(decay_mult=0.0),
            '.denominator': dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=295, eta_min=1e-5, by_epoch=True, begin=5, end=300),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=310, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# 8 GPUs x 128 images; the release had 4 x 256.
auto_scale_lr = dict(base_batch_size=1024)
