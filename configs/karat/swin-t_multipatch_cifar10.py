# Swin-Tiny with MultiPatch-RBFKAN, ViK's mixer, instead of its windows, on CIFAR-10 at 224 pixels.
#   tools/dist_train.sh configs/karat/swin-t_multipatch_cifar10.py 8
# 8 GPUs x 128 images, 100 epochs. Not trained here, no result is known.
_base_ = 'swin-t_softmax_cifar10.py'

model = dict(backbone=dict(attn_cfg=dict(type='MultiPatchRBFKAN', patch_size=7)))
