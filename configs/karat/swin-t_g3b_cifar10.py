# Swin-Tiny with KArAt G3B in its windows on CIFAR-10 at 224 pixels.
#   tools/dist_train.sh configs/karat/swin-t_g3b_cifar10.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 79.34 % top-1; not trained here.
_base_ = 'swin-t_softmax_cifar10.py'

model = dict(backbone=dict(attn_cfg=dict(type='KArAt', grid_size=3)))
