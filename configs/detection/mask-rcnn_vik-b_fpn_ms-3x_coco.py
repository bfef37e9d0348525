# Mask R-CNN with ViK-Base on COCO, 36 epochs, many scales.
#   tools/dist_train.sh configs/detection/mask-rcnn_vik-b_fpn_ms-3x_coco.py 8
# 8 GPUs x 2 images. Not trained here: neither COCO nor ImageNet weights were at hand.
_base_ = 'mask-rcnn_vik-s_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.2, init_cfg=dict(checkpoint='work_dirs/vik-b_in1k/epoch_310.pth'))
)
