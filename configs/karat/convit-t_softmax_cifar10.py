# ConViT-Tiny on CIFAR-10 at 224 pixels.
#   tools/dist_train.sh configs/karat/convit-t_softmax_cifar10.py 8
# 8 GPUs x 128 images, 100 epochs. The KArAt paper reports 71.36 % top-1; not trained here.
_base_ = 'vit-t_softmax_cifar10.py'

model = dict(backbone=dict(_delete_=True, type='ConViTKArAt', model_name='convit_tiny', attn_cfg=dict(type='Softmax')))
