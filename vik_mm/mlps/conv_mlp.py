"""The MLP of a block, on feature maps."""

import torch
from mmcv.cnn.bricks import build_activation_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.ops import is_traced

from .base import ChannelMLP
from .strips import strip_length


@MODELS.register_module()
class ConvMLP(ChannelMLP):
    """Two 1x1 convolutions with an activation between, applied to each pixel.

    On a CPU this works in channels-last layout, unless there are few pixels. OneDNN's convolutions, most of all their
    backward passes, are faster there by more than the copy costs. Without gradients it works on one strip at a time, so
    that the hidden map never exists as a whole. A compiler or tracer sees neither.

    Args:
        embed_dims (int): Channels ``C`` of input and output.
        hidden_dims (int): Channels between the two convolutions.
        act_cfg (dict): Config of the activation. Defaults to ``dict(type='GELU')``.
        drop_rate (float): Dropout after each convolution. Defaults to 0.

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Source:
        ``Mlp`` of the authors' ``vik.py``: truncated normal weights of standard deviation 0.02, zero bias.
    """

    def __init__(self, embed_dims: int, hidden_dims: int, act_cfg: dict = dict(type='GELU'), drop_rate: float = 0.0):
        super().__init__(embed_dims, hidden_dims, act_cfg, drop_rate)
        self.fc1 = nn.Conv2d(embed_dims, hidden_dims, 1)
        self.act = build_activation_layer(act_cfg)
        self.fc2 = nn.Conv2d(hidden_dims, embed_dims, 1)
        for conv in (self.fc1, self.fc2):
            nn.init.trunc_normal_(conv.weight, std=0.02)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C, H, W]``."""
        if is_traced() or x.device.type != 'cpu':
            return self._forward(x)
        pixels, training = x[:, 0].numel(), torch.is_grad_enabled()
        strip = strip_length(x, self.hidden_dims)
        if pixels <= (x.shape[1] // 2 if training else strip):
            return self._forward(x)
        x = x.contiguous(memory_format=torch.channels_last)
        if training:
            return self._forward(x).contiguous()
        strips = x.permute(0, 2, 3, 1).view(1, 1, -1, x.shape[1]).split(strip, dim=2)
        answers = [self._forward(strip.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) for strip in strips]
        return torch.cat(answers, dim=2).view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2).contiguous()

    def _forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
