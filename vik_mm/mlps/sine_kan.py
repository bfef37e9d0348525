"""SineKAN as a channel MLP.

Shape letters: ``R`` rows, one for each pixel, ``I`` in features, ``O`` out features, ``G`` sines of an input.
"""

import math

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import linear
from vik_mm.ops.backends import compute_dtype

from .base import KANMLP
from .strips import map_strips

# The scale of the phases for G sines is the product over n < G of FACTOR * n ** POWER + OFFSET.
FACTOR, POWER, OFFSET = 0.9724108095811765, -0.9884401790754128, 0.999449553483052


class SineLayer(nn.Module):
    r"""Kolmogorov-Arnold layer over sines with learned frequencies and fixed phases.

    .. math:: y_o = b_o + \sum_i \sum_g A_{oig} \sin(f_g x_i + p_{ig})

    Args:
        in_features (int): ``I``.
        out_features (int): ``O``.
        num_sines (int): ``G``.
        is_first (bool): Whether the layer starts with the frequencies and amplitudes of a first layer.

    Shape:
        - Input: ``[R, I]``.
        - Output: ``[R, O]``; sines are computed in float32 at least.
    """

    phase: Tensor

    def __init__(self, in_features: int, out_features: int, num_sines: int, is_first: bool):
        super().__init__()
        self.num_bases = num_sines
        orders = torch.arange(1, num_sines + 1)
        self.freq = nn.Parameter(orders / (1 if is_first else num_sines + 1))
        self.amplitudes = nn.Parameter(torch.empty(out_features, in_features, num_sines))
        self.bias = nn.Parameter(torch.full((out_features,), 1 / out_features))
        scale = math.prod(FACTOR * n**POWER + OFFSET for n in range(1, num_sines))
        inputs = torch.linspace(0, math.pi, in_features, dtype=torch.float64)
        phase = scale * (inputs[:, None] + orders / (num_sines + 1))
        self.register_buffer('phase', phase.float())
        draws = torch.empty(out_features, in_features, 1)  # one for all sines of a pair
        draws = draws.normal_(0, 0.4) if is_first else draws.uniform_(-1, 1)
        self.amplitudes.data.copy_(draws / (out_features * orders))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[R, I]`` to ``[R, O]``."""
        return map_strips(self._map, x, 2 * self.num_bases * x.shape[1])  # the sines and their angles

    def _map(self, x: Tensor) -> Tensor:
        dtype = compute_dtype(x)
        angles = torch.addcmul(self.phase.t().to(dtype), x.to(dtype).unsqueeze(1), self.freq.to(dtype).unsqueeze(1))
        weight = self.amplitudes.transpose(1, 2).flatten(1)  # [O, G * I]
        return linear(angles.sin().flatten(1).to(x.dtype), weight, self.bias)


@MODELS.register_module()
class SineKAN(KANMLP):
    """Two Kolmogorov-Arnold layers over sines.

    Its weights are ``num_sines`` times those of :class:`ConvMLP` with the same hidden channels; ``mlp_ratio=0.5``
    makes it comparable. The amplitudes start at ``1 / O``, so that wide layers are almost silent at the start.

    Args:
        embed_dims (int): Channels ``C`` of input and output.
        hidden_dims (int): Channels between the two layers.
        act_cfg (dict): Not used: the layers are activations themselves. Defaults to ``dict(type='GELU')``.
        drop_rate (float): Dropout after each layer. Defaults to 0.
        num_sines (int): Sines of each input. Defaults to 8.

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Raises:
        BadInputError: If ``num_sines < 1``.

    Source:
        arXiv 2503.01124 names the layer; the layer is that of arXiv 2407.04149, whose weights can be loaded. Written
        from the formula.
    """

    def __init__(
        self,
        embed_dims: int,
        hidden_dims: int,
        act_cfg: dict = dict(type='GELU'),
        drop_rate: float = 0.0,
        num_sines: int = 8,
    ):
        if num_sines < 1:
            raise BadInputError(f'num_sines={num_sines} must be at least 1')
        layers = (
            SineLayer(embed_dims, hidden_dims, num_sines, is_first=True),
            SineLayer(hidden_dims, embed_dims, num_sines, is_first=False),
        )
        super().__init__(layers, embed_dims, hidden_dims, act_cfg, drop_rate)
