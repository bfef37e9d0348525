# CIFAR-10 enlarged to 224 pixels, as the KArAt paper trains on it.
_base_ = 'cifar10_bs128.py'

train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='Resize', scale=224, interpolation='bicubic'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='Resize', scale=224, interpolation='bicubic'), dict(type='PackInputs')]

train_dataloader = dict(num_workers=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=8, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
