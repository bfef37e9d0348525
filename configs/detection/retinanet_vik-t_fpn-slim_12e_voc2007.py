# RetinaNet with ViK-Tiny on photos of PASCAL VOC 2007, from scratch or, in a study, from a pretrained backbone.
#   python tools/train.py configs/detection/retinanet_vik-t_fpn-slim_12e_voc2007.py
# Data: data/voc2007_det/{train,val}/*.jpg and instances_{train,val}.json. Not trained here, no result is known.
_base_ = [
    '../_base_/models/retinanet_vik-t_slim.py',
    '../_base_/datasets/voc2007_detection.py',
    '../_base_/schedules/small_epochs_adamw.py',
    '../_base_/det_runtime.py',
]

model = dict(backbone=dict(img_size=256), bbox_head=dict(num_classes=20))
