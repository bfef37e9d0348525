# Mask R-CNN with ViK-Base on COCO, 12 epochs.
#   tools/dist_train.sh configs/detection/mask-rcnn_vik-b_fpn_1x_coco.py 8
# 8 GPUs x 2 images. Not trained here: neither COCO nor ImageNet weights were at hand.
_base_ = [
    '../_base_/models/mask-rcnn_vik_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_1x_adamw.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.2, init_cfg=dict(checkpoint='work_dirs/vik-b_in1k/epoch_310.pth'))
)
