# ViT-Tiny with KArAt G3U, one operator for all blocks, on ImageNet-1K at 224 pixels.
#   tools/dist_train.sh configs/karat/vit-t_g3u_in1k.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 57.97 % top-1; not trained here.
_base_ = 'vit-t_softmax_in1k.py'

model = dict(backbone=dict(attn_cfg=dict(type='KArAt', grid_size=3, universal=True)))
