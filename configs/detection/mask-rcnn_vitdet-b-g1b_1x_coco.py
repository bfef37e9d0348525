# Mask R-CNN with ViTDet-Base, KArAt G1B, an operator for each block, on COCO, 12 epochs.
#   tools/dist_train.sh configs/detection/mask-rcnn_vitdet-b-g1b_1x_coco.py 8
# 8 GPUs x 2 images. The KArAt paper prints no figure; not trained here.
_base_ = [
    '../_base_/models/mask-rcnn_vitdet-b.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_1x_adamw.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        attn_cfg=dict(type='KArAt', grid_size=1),
        init_cfg=dict(checkpoint='work_dirs/vit-b_g1b_in1k/epoch_100.pth'),
    )
)
