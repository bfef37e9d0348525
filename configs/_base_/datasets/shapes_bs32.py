# The built-in shapes as an ImageNet-style folder. Write it with
#   python tools/data/make_shapes.py data/shapes
data_preprocessor = dict(
    num_classes=8,
    mean=[127.5, 127.5, 127.5],
    std=[64.0, 64.0, 64.0],
    to_rgb=True,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    pin_memory=True,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='ResumableBatchSampler'),
    worker_init_fn=dict(type='outlive_signals'),
    dataset=dict(type='CustomDataset', data_root='data/shapes/imagenet', data_prefix='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=1,
    pin_memory=True,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    worker_init_fn=dict(type='outlive_signals'),
    dataset=dict(type='CustomDataset', data_root='data/shapes/imagenet', data_prefix='val', pipeline=test_pipeline),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))

test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], data_prefix='test'))
test_evaluator = val_evaluator
