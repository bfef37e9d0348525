"""GR-KAN, the channel MLP of the Kolmogorov-Arnold transformer.

Shape letters: ``R`` rows, one for each pixel, ``C`` channels, ``F`` features.
"""

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops.backends import compute_dtype

from .base import ChannelMLP
from .strips import map_strips

# Numerators a_0 ... a_5 and denominators b_1 ... b_4 that come close to an activation, and the gain of a linear layer
# behind it: Var[x] / E[F(x)^2] of a standard normal x. The fits are for the denominator below.
STARTS = {
    'identity': ((0.0, 1.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), 1.0),
    'SiLU': (
        (
            3.054879741161051e-07,
            0.5000007853744493,
            0.24999783422824703,
            0.05326628273219478,
            0.005803034571292244,
            0.0002751961022402342,
        ),
        (-4.111554955950634e-06, 0.10652899335007572, -1.2690007399796238e-06, 0.0005502331264140556),
        2.8178,
    ),
    'GELU': (
        (
            -0.0012423594497499122,
            0.5080497063245629,
            0.41586363182937475,
            0.13022718688035761,
            0.024355900098993424,
            0.00290283948155535,
        ),
        (-0.06675015696494944, 0.17927646217001553, 0.03746682605496631, 1.6561610853276082e-10),
        2.3568,
    ),
}


class GroupRational(nn.Module):
    r"""Learned rational function, one for each group of neighbouring features.

    .. math:: F(x) = \frac{a_0 + a_1 x + \dots + a_5 x^5}{1 + |b_1| |x| + \dots + |b_4| |x|^4}

    Args:
        num_features (int): ``F``.
        num_groups (int): Groups of ``F / num_groups`` features; each has its own ``b``.
        start (str): Function at the start: 'identity', 'SiLU' or 'GELU'.
        share_numerator (bool): Whether all groups have one ``a``.

    Shape:
        - Input and output: ``[R, F]``; computed in float32 at least, in which ``x ** 5`` does not overflow.

    Source:
        arXiv 2409.10594, section 4. The denominator is that of the authors' kernels, which all published weights were
        trained with; the paper has ``1 + |b_1 x + ... + b_4 x^4|``.
    """

    def __init__(self, num_features: int, num_groups: int, start: str, share_numerator: bool):
        super().__init__()
        self.num_features = num_features
        above, below, _ = STARTS[start]
        numerator, denominator = torch.tensor(above), torch.tensor(below)
        self.numerator = nn.Parameter(numerator if share_numerator else numerator.repeat(num_groups, 1))
        self.denominator = nn.Parameter(denominator.repeat(num_groups, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[R, F]`` to ``[R, F]``."""
        return map_strips(self._rational, x, 12 * self.num_features)  # what autograd would keep of it

    def _rational(self, rows: Tensor) -> Tensor:
        x = rows.to(compute_dtype(rows)).unflatten(1, (self.denominator.shape[0], -1))  # [R, groups, F / groups]
        size = x.abs()
        a = self.numerator.view(-1, 6, 1).to(x.dtype).unbind(1)  # each [groups or 1, 1]
        b = self.denominator.abs().view(-1, 4, 1).to(x.dtype).unbind(1)
        above, below = a[5], b[3]
        for k in (4, 3, 2, 1, 0):
            above = torch.addcmul(a[k], above, x)
        for k in (2, 1, 0):
            below = torch.addcmul(b[k], below, size)
        return (above / torch.addcmul(x.new_ones(()), below, size)).flatten(1).to(rows.dtype)


@MODELS.register_module()
class GRKAN(ChannelMLP):
    """Two linear layers, each behind a learned rational function.

    ``fc2(drop(F_2(fc1(drop(F_1(x))))))``: other than in an MLP, an activation stands before each layer. ``F_1`` starts
    as the identity. The coefficients should see no weight decay; the schedules of this project spare them.

    Args:
        embed_dims (int): Channels ``C`` of input and output.
        hidden_dims (int): Channels between the two layers.
        act_cfg (dict): Not used: ``act_start`` says what the second function starts as.
            Defaults to ``dict(type='GELU')``.
        drop_rate (float): Dropout behind each function. Defaults to 0.
        num_groups (int): Groups of channels with a denominator of their own. Defaults to 8.
        act_start (str): What ``F_2`` starts as, 'SiLU' or 'GELU'. Defaults to 'SiLU'.
        share_numerator (bool): Whether all groups have one numerator, as published weights have. Defaults to True.
        init (str): 'variance': each linear layer keeps the variance that its input has before the function, as the
            paper says; 'trunc_normal': standard deviation 0.02, as the released code does. Defaults to 'variance'.

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Raises:
        BadInputError: If ``num_groups`` does not divide ``embed_dims`` and ``hidden_dims``, or an option is unknown.

    Source:
        arXiv 2409.10594, section 4, and ``KAN`` of the authors' ``katransformer.py``. There the start that the paper
        describes is overwritten; the fit of GELU is that for the kernels' denominator ("gelu_old"), since "gelu" was
        made for the paper's and is off by 1.5.
    """

    original_names = ((r'\.numerator$', '.weight_numerator'), (r'\.denominator$', '.weight_denominator'))

    def __init__(
        self,
        embed_dims: int,
        hidden_dims: int,
        act_cfg: dict = dict(type='GELU'),
        drop_rate: float = 0.0,
        num_groups: int = 8,
        act_start: str = 'SiLU',
        share_numerator: bool = True,
        init: str = 'variance',
    ):
        super().__init__(embed_dims, hidden_dims, act_cfg, drop_rate)
        if num_groups < 1 or embed_dims % num_groups or hidden_dims % num_groups:
            raise BadInputError(
                f'num_groups={num_groups} must divide the channels of GRKAN, {embed_dims} outside and {hidden_dims} '
                'inside; mlp_ratio sets the inner ones'
            )
        if act_start not in ('SiLU', 'GELU'):
            raise BadInputError(f"act_start={act_start!r} is unknown; choose 'SiLU' or 'GELU'")
        if init not in ('variance', 'trunc_normal'):
            raise BadInputError(f"init={init!r} is unknown; choose 'variance' or 'trunc_normal'")
        self.act1 = GroupRational(embed_dims, num_groups, 'identity', share_numerator)
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.act2 = GroupRational(hidden_dims, num_groups, act_start, share_numerator)
        self.fc2 = nn.Linear(hidden_dims, embed_dims)
        for layer, start in ((self.fc1, 'identity'), (self.fc2, act_start)):
            nn.init.zeros_(layer.bias)
            if init == 'variance':
                nn.init.normal_(layer.weight, std=(STARTS[start][2] / layer.in_features) ** 0.5)
            else:
                nn.init.trunc_normal_(layer.weight, std=0.02)

    def map_rows(self, rows: Tensor) -> Tensor:
        """Map ``[R, C]`` to ``[R, C]``."""
        hidden = self.fc1(self.drop(self.act1(rows)))
        return self.fc2(self.drop(self.act2(hidden)))

    def row_width(self) -> int:
        """Count the hidden channels before and behind the function, and its numerator and denominator."""
        return 4 * self.hidden_dims
