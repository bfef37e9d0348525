# Car parts' semantic maps: ground and 18 parts, crops of 192x192. Left and right are classes: no horizontal flip.
_base_ = 'camvid_192x192.py'

data_root = 'data/carparts'
metainfo = dict(
    _delete_=True,
    classes=(
        *('background', 'back_bumper', 'back_glass', 'back_left_door', 'back_left_light', 'back_right_door'),
        *('back_right_light', 'front_bumper', 'front_glass', 'front_left_door', 'front_left_light'),
        *('front_right_door', 'front_right_light', 'hood', 'left_mirror', 'right_mirror', 'tailgate', 'trunk'),
        'wheel',
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(256, 256), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(192, 192)),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
folders = dict(img_path='images', seg_map_path='seg_maps')
train_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file='train.txt', data_prefix=folders, pipeline=train_pipeline
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file='val.txt', data_prefix=folders, pipeline=test_pipeline
    )
)
test_dataloader = val_dataloader
