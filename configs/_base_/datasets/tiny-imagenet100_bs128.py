# Every second class of Tiny ImageNet: 64-pixel photos of 100 classes, 350 to train on and 50 to test each, as folders
# train/<class>/ and val/<class>/.
data_preprocessor = dict(
    num_classes=100,
    mean=[122.2, 114.6, 101.6],
    std=[70.0, 68.0, 71.4],
    to_rgb=True,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=64, padding=8),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    pin_memory=True,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='ResumableBatchSampler'),
    worker_init_fn=dict(type='outlive_signals'),
    dataset=dict(type='CustomDataset', data_root='data/tiny_imagenet100', data_prefix='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=1,
    pin_memory=True,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    worker_init_fn=dict(type='outlive_signals'),
    dataset=dict(type='CustomDataset', data_root='data/tiny_imagenet100', data_prefix='val', pipeline=test_pipeline),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
