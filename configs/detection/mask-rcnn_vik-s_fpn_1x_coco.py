# Mask R-CNN with ViK-Small on COCO, 12 epochs.
#   tools/dist_train.sh configs/detection/mask-rcnn_vik-s_fpn_1x_coco.py 8
# 8 GPUs x 2 images. Not trained here: neither COCO nor ImageNet weights were at hand.
_base_ = [
    '../_base_/models/mask-rcnn_vik_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_1x_adamw.py',
    '../_base_/det_runtime.py',
]
