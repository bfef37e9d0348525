# Classifier on a vision transformer of DeiT's layout; the leaf names the attention.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ViTKArAt', arch='tiny', img_size=224, patch_size=16, attn_cfg=dict(type='Softmax')),
    neck=None,
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=1000,
        in_channels=192,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        cal_acc=False,
    ),
)
