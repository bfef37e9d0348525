# Mask R-CNN with ViTDet-Base, KArAt G1U, one operator for all blocks, on COCO, 12 epochs.
#   tools/dist_train.sh configs/detection/mask-rcnn_vitdet-b-g1u_1x_coco.py 8
# 8 GPUs x 2 images. The KArAt paper reports 26.68 / 24.01 box / mask AP; its schedule is not
# printed. Not trained here.
_base_ = [
    '../_base_/models/mask-rcnn_vitdet-b.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_1x_adamw.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        attn_cfg=dict(type='KArAt', grid_size=1, universal=True),
        init_cfg=dict(checkpoint='work_dirs/vit-b_g1u_in1k/epoch_100.pth'),
    )
)
