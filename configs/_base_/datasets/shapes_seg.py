# The built-in shapes with label maps, in ADE20K's layout: 0 is no label. Write them with
#   python tools/data/make_shapes.py data/shapes
_base_ = 'camvid_192x192.py'

data_root = 'data/shapes/ade20k'
metainfo = dict(
    _delete_=True,
    classes=('ground', 'circle', 'crescent', 'cross', 'heart', 'ring', 'square', 'star', 'triangle'),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
shared = dict(data_root=data_root, metainfo=metainfo, img_suffix='.png', reduce_zero_label=True)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        **shared,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        **shared,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=8,
    dataset=dict(
        **shared,
        data_prefix=dict(img_path='images/testing', seg_map_path='annotations/testing'),
        pipeline=test_pipeline,
    ),
)
