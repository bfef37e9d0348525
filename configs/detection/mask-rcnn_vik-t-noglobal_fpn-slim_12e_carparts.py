# Mask R-CNN with ViK-Tiny less its global step on car parts, from scratch: the control of the run with it.
#   python tools/train.py configs/detection/mask-rcnn_vik-t-noglobal_fpn-slim_12e_carparts.py
_base_ = 'mask-rcnn_vik-t_fpn-slim_12e_carparts.py'

model = dict(backbone=dict(token_mixer=dict(type='MultiPatchRBFKAN', global_mix=False)))
