# ResNet-18 from scratch, to compare ViK-Tiny with. A leaf lists this file beside a model's base, and puts
# _base_.resnet18 in the backbone's place.
resnet18 = dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3), norm_cfg=dict(type='BN'), init_cfg=None)
