# Semantic FPN with ViK-Base on ADE20K, 40,000 iterations.
#   tools/dist_train.sh configs/segmentation/fpn_vik-b_8xb4-40k_ade20k-512x512.py 8
# 8 GPUs x 4 images. Not trained here: neither ADE20K nor ImageNet weights were at hand.
_base_ = [
    '../_base_/models/fpn_vik.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/ade20k_40k_adamw.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.2, init_cfg=dict(checkpoint='work_dirs/vik-b_in1k/epoch_310.pth'))
)
