# ViT-Small with KArAt G3U, one operator for all blocks, on CIFAR-10 at 224 pixels.
#   tools/dist_train.sh configs/karat/vit-s_g3u_cifar10.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 79.52 % top-1; not trained here.
_base_ = 'vit-s_softmax_cifar10.py'

model = dict(backbone=dict(attn_cfg=dict(type='KArAt', grid_size=3, universal=True)))
