# ConViT-Tiny on CIFAR-10 at 224 pixels.
#   tools/dist_train.sh configs/karat/convit-t_softmax_cifar10.py 8
# 8 GPUs x 128 images, 100 epochs. The KArAt paper reports 71.36 % top-1; not trained here.
_base_ = [
    '../_base_/models/vit_karat.py',
    '../_base_/datasets/cifar10_bs128_224.py',
    '../_base_/schedules/bs1024_100e_adamw_karat.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(_delete_=True, type='ConViTKArAt', model_name='convit_tiny', attn_cfg=dict(type='Softmax')),
    head=dict(num_classes=10),
)
