# ViT-Tiny with KArAt G3B, an operator for each block, on CIFAR-10 at 32 pixels, patches of 4.
#   python tools/train.py configs/karat/vit-t_g3b_cifar10-32px.py --amp --cfg-options optim_wrapper.dtype=bfloat16
# 1 CPU thread: 46 min for 5 epochs of 25,000 images, measured 60.66 % top-1 (configs/karat/metafile.yml).
_base_ = 'vit-t_softmax_cifar10-32px.py'

model = dict(backbone=dict(attn_cfg=dict(type='KArAt', grid_size=3)))
