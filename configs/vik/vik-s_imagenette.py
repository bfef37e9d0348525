# ViK-Small on Imagenette, ten classes of ImageNet in its folder layout, with the very pipeline of vik-s_in1k.py.
#   python tools/train.py configs/vik/vik-s_imagenette.py
# 1 GPU, 128 images. For trying the pipeline on real photos; not trained to the end here, no result is known.
_base_ = 'vik-s_in1k.py'

data_preprocessor = dict(num_classes=10)
model = dict(head=dict(num_classes=10))

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/imagenette',
        data_prefix='train',
        pipeline={{_base_.train_pipeline}},
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/imagenette',
        data_prefix='val',
        pipeline={{_base_.test_pipeline}},
    ),
)
test_dataloader = val_dataloader
