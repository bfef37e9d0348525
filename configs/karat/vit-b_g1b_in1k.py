# ViT-Base with KArAt G1B, an operator for each block, on ImageNet-1K at 224 pixels.
#   tools/dist_train.sh configs/karat/vit-b_g1b_in1k.py 8
# 8 GPUs x 128 images, 100 epochs. The paper reports 68.03 % top-1; not trained here.
_base_ = 'vit-b_softmax_in1k.py'

model = dict(backbone=dict(attn_cfg=dict(type='KArAt', grid_size=1)))
