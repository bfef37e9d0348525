# Mask R-CNN on ViTDet-Base: a plain transformer, attention in windows but for every third block, and a pyramid of its
# last map. Positions and operators are those of 224 pixels; a window has as many tokens as the grid of such an image.
_base_ = 'mask-rcnn_vik_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ViTKArAt',
        arch='base',
        attn_cfg=dict(type='Softmax'),
        drop_path_rate=0.1,
        out_type='pyramid',
        with_cls_token=False,
        window_size=14,
        global_indices=(2, 5, 8, 11),
        with_cp=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/vit-b_softmax_in1k/epoch_100.pth',  # where configs/karat leaves it
            prefix='backbone.',
        ),
    ),
    neck=dict(
        _delete_=True,
        type='ChannelMapper',  # no top-down path: the maps come from one
        in_channels=[192, 384, 768, 768],
        kernel_size=3,
        out_channels=256,
        norm_cfg=dict(type='GN', num_groups=1),
        act_cfg=None,
        num_outs=5,
    ),
)
