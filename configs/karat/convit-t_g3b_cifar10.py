# ConViT-Tiny with KArAt G3B on CIFAR-10 at 224 pixels.
#   tools/dist_train.sh configs/karat/convit-t_g3b_cifar10.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 75.57 % top-1; not trained here.
_base_ = 'convit-t_softmax_cifar10.py'

model = dict(backbone=dict(attn_cfg=dict(type='KArAt', grid_size=3)))
