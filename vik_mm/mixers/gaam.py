"""Gaussian adaptive attention: each value is weighed by how probable it is among the values beside it.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads, ``m`` channels of a head, ``J`` Gaussians.
"""

import math

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops.backends import compute_dtype

from .base import TokenMixer
from .convolutions import check_divides

EPS = 1e-8
AXES = ('spatial', 'channel')
FORMS = ('product', 'density')


@MODELS.register_module()
class GaussianAdaptiveAttention(TokenMixer):
    r"""Gate of each value by Gaussians around the mean of its row; no pair of pixels is ever compared.

    .. math::
        \mathrm{gate}_t = \exp(l_t - \max(\log \sum_u e^{l_u}, \log 10^{-8})), \quad
        l_t = \sum_{j=1}^J -\frac{(v_t - \bar v - \delta_j)^2}{2 c_j^2 s^2} - \frac{\log(2 \pi c_j^2)}{2}

    The row ``v`` has mean ``v̄`` and unbiased variance ``s²``; offsets ``δ`` and widths ``c`` are learned for each head.
    The mixer returns ``gate * v``. The gate sums to 1 along the row, so that the output shrinks as the row grows:
    ``rescale`` takes that back. A row of one value stays as it is.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused; the mixer is the same at every size.
        num_heads (int): ``h``. 'density' has no heads. Defaults to 8.
        num_gaussians (int): ``J``. 'density' has one Gaussian for each channel. Defaults to 4.
        axis (str): What a row is. 'spatial': the pixels of a channel, and ``h`` must divide ``C``. 'channel': the
            channels of a head at one pixel, as in the release; pixels then never meet, and the last head takes the
            channels that are left over. Defaults to 'spatial'.
        form (str): 'product': the formula above, of the released code. 'density': the paper's Algorithm 1, with an
            offset ``δ`` (start 0) and a width ``ξ`` (start 2) for each channel, biased variance, and the gate
            ``exp(-(v - v̄ - δ)² / (2 ξ (s² + 1e-8 + 1e-5)))``, which is not normalised. Defaults to 'product'.
        rescale (bool): Whether to multiply by the number of values in the row, so that the mean gate is 1 at every
            size. 'density' needs none. Defaults to False, as in the release.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If an option is unknown, or ``num_heads`` does not suit the channels.

    Source:
        arXiv 2401.11143; ``GaussianAdaptiveAttention`` of ``GaussianBlock.py`` (gioannides/Gaussian-Adaptive-Attention,
        commit 145d1bc, Apache-2.0). The release cuts heads along the row itself, which would bind heads of pixels to
        one size; here heads are groups of channels on both axes. It multiplies densities, which underflow; here they
        are added as logarithms. A product of Gaussians is a Gaussian, so that the cost does not grow with ``J``.
    """

    original_names = ((r'^offsets$', 'attention_heads.*.mean_offsets'), (r'^widths$', 'attention_heads.*.c'))

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        num_heads: int = 8,
        num_gaussians: int = 4,
        axis: str = 'spatial',
        form: str = 'product',
        rescale: bool = False,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        if axis not in AXES:
            raise BadInputError(f'axis={axis!r} is unknown; choose one of {AXES}')
        if form not in FORMS:
            raise BadInputError(f'form={form!r} is unknown; choose one of {FORMS}')
        if form == 'density' and axis != 'spatial':
            raise BadInputError("form='density' is over the pixels of a channel; it needs axis='spatial'")
        self.axis, self.form, self.rescale = axis, form, rescale
        self.num_heads = num_heads
        if form == 'density':
            self.offsets = nn.Parameter(torch.zeros(embed_dims))
            self.widths = nn.Parameter(torch.full((embed_dims,), 2.0))
            return
        if num_gaussians < 1:
            raise BadInputError(f'num_gaussians={num_gaussians} must be at least 1')
        if axis == 'spatial':
            check_divides('num_heads', num_heads, embed_dims)
        if axis == 'channel' and not 1 <= num_heads <= embed_dims // 2:
            raise BadInputError(
                f'num_heads={num_heads} leaves heads less than two of the {embed_dims} channels, and one channel has '
                f'no variance; choose 1 to {embed_dims // 2}'
            )
        self.offsets = nn.Parameter(torch.zeros(num_heads, num_gaussians))
        self.widths = nn.Parameter(torch.randn(num_heads, num_gaussians).exp())

    def from_original(self, name: str, value: Tensor) -> Tensor:
        """Give the values of all heads, which the release has in a row each, a row for each head."""
        return value.reshape(self.num_heads, -1) if value.numel() == self.offsets.numel() else value

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``[B, C, H, W]``."""
        values = x.flatten(2).to(compute_dtype(x))  # [B, C, N]
        if self.form == 'density':
            gated = values * self._density_gate(values)
        elif self.axis == 'spatial':
            gated = self._gate_heads(values, slice(None), dim=3)
        else:
            even = self.embed_dims // self.num_heads * (self.num_heads - 1)
            parts = [(values[:, :even], slice(-1)), (values[:, even:], slice(-1, None))]
            gated = torch.cat([self._gate_heads(part, heads, dim=2) for part, heads in parts if part.shape[1]], dim=1)
        return gated.to(x.dtype).view_as(x)

    def _gate_heads(self, values: Tensor, heads: slice, dim: int) -> Tensor:
        """Gate the channels of some heads, all of them of one width, ``[B, h m, N] -> [B, h m, N]``."""
        offsets, widths = self.offsets[heads], self.widths[heads]
        precision = 1 / (2 * widths**2)  # [h, J]
        total = precision.sum(1, keepdim=True)
        centre = (precision * offsets).sum(1, keepdim=True) / total
        # Of no consequence for the shape of the gate, and all the same for whether its sum is clamped.
        spread = (precision * (offsets - centre) ** 2).sum(1, keepdim=True)
        log_norm = (2 * math.pi * widths**2).log().sum(1, keepdim=True) / 2

        v = values.unflatten(1, (offsets.shape[0], -1))  # [B, h, m, N]
        length = v.new_ones(v.shape[dim]).sum()  # a tensor, as traced sizes must not be asked whether they are 1
        centred = v - v.mean(dim, keepdim=True)
        variance = centred.square().sum(dim, keepdim=True) / (length - 1).clamp(min=1) + EPS
        exponent = total[..., None] * (centred - centre[..., None]) ** 2 + spread[..., None]
        log_density = -exponent / variance - log_norm[..., None]
        log_sum = log_density.logsumexp(dim, keepdim=True).clamp(min=math.log(EPS))
        gate = torch.where(length == 1, 1, (log_density - log_sum).exp())
        return (v * (gate * length if self.rescale else gate)).flatten(1, 2)

    def _density_gate(self, values: Tensor) -> Tensor:
        centred = values - values.mean(2, keepdim=True)
        variance = centred.square().mean(2, keepdim=True) + EPS + 1e-5
        return (-((centred - self.offsets[:, None]) ** 2) / (2 * self.widths[:, None] * variance)).exp()
