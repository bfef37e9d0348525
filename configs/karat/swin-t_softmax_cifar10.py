# Swin-Tiny on CIFAR-10 at 224 pixels.
#   tools/dist_train.sh configs/karat/swin-t_softmax_cifar10.py 8
# 8 GPUs x 128 images, 100 epochs. The KArAt paper reports 84.83 % top-1; not trained here.
_base_ = 'vit-t_softmax_cifar10.py'

model = dict(
    backbone=dict(_delete_=True, type='SwinKArAt', arch='tiny', img_size=224, attn_cfg=dict(type='Softmax')),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=768),
)
