# ViT-Base with KArAt G1U, one operator for all blocks, on CIFAR-100 at 224 pixels.
#   tools/dist_train.sh configs/karat/vit-b_g1u_cifar100.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 57.36 % top-1; not trained here.
_base_ = 'vit-b_softmax_cifar100.py'

model = dict(backbone=dict(attn_cfg=dict(type='KArAt', grid_size=1, universal=True)))
