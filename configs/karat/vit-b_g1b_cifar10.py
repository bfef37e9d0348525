# ViT-Base with KArAt G1B, an operator for each block, on CIFAR-10 at 224 pixels.
#   tools/dist_train.sh configs/karat/vit-b_g1b_cifar10.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 81.81 % top-1; not trained here.
_base_ = 'vit-b_softmax_cifar10.py'

model = dict(backbone=dict(attn_cfg=dict(type='KArAt', grid_size=1)))
