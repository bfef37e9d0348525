# The schedule of the authors' release: AdamW, 5 epochs of warm-up, cosine to 300 epochs, 10 epochs at the last rate.
_base_ = '../optimizers/adamw_vik.py'

optim_wrapper = dict(
    type='AmpOptimWrapper',  # tools/train.py takes float32 where there is no GPU, and says so
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
