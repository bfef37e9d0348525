# ViK-Large on ImageNet-1K, divided among the GPUs (FSDP); otherwise vik-l_in1k.py.
#   tools/dist_train.sh configs/vik/vik-l_fsdp_in1k.py 8
# 8 GPUs x 128 images, 310 epochs. On two CPU processes losses are those of DDP; not trained here, not run on GPUs.
_base_ = ['vik-l_in1k.py', '../_base_/fsdp.py']
