# ViT-Tiny with MultiPatch-RBFKAN, ViK's mixer, on CIFAR-10 at 32 pixels, patches of 4.
#   python tools/train.py configs/karat/vit-t_multipatch_cifar10-32px.py
# 1 CPU thread: about an hour for 5 epochs of 25,000 images. Not trained to the end here yet, no result is known.
_base_ = 'vit-t_softmax_cifar10-32px.py'

model = dict(backbone=dict(attn_cfg=dict(type='MultiPatchRBFKAN', patch_size=4)))
