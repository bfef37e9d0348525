# Mask R-CNN with ViTDet-Base, softmax attention, on COCO, 12 epochs.
#   tools/dist_train.sh configs/detection/mask-rcnn_vitdet-b-softmax_1x_coco.py 8
# 8 GPUs x 2 images. The KArAt paper reports 32.34 / 28.35 box / mask AP; its schedule is not
# printed. Not trained here.
_base_ = [
    '../_base_/models/mask-rcnn_vitdet-b.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_1x_adamw.py',
    '../_base_/det_runtime.py',
]
