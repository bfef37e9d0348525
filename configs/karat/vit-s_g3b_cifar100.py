# ViT-Small with KArAt G3B, an operator for each block, on CIFAR-100 at 224 pixels.
#   tools/dist_train.sh configs/karat/vit-s_g3b_cifar100.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 54.11 % top-1; not trained here.
_base_ = 'vit-s_softmax_cifar100.py'

model = dict(backbone=dict(attn_cfg=dict(type='KArAt', grid_size=3)))
