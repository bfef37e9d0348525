# Mask R-CNN with ViK-Small on COCO, 36 epochs, many scales.
#   tools/dist_train.sh configs/detection/mask-rcnn_vik-s_fpn_ms-3x_coco.py 8
# 8 GPUs x 2 images. Not trained here: neither COCO nor ImageNet weights were at hand.
_base_ = [
    '../_base_/models/mask-rcnn_vik_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/coco_3x_adamw.py',
    '../_base_/det_runtime.py',
]
