# ViK as a dense-prediction backbone, all four maps, from an ImageNet checkpoint. This is the one place that names it:
#   --cfg-options model.backbone.init_cfg.checkpoint=FILE, or model.backbone.init_cfg=None to train from scratch.
model = dict(
    backbone=dict(
        type='mmpretrain.ViK',
        arch='small',
        drop_path_rate=0.1,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/vik-s_in1k/epoch_310.pth',  # where configs/vik/vik-s_in1k.py leaves it
            prefix='backbone.',
        ),
    ),
)
