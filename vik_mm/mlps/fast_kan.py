"""FastKAN, Gaussians with fixed centres, as a channel MLP.

Shape letters: ``R`` rows, one for each pixel, ``I`` in features, ``O`` out features, ``G`` Gaussians of an input.
"""

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import rbf_kan

from .base import KANMLP


class FastKANLayer(nn.Module):
    r"""Kolmogorov-Arnold layer over fixed Gaussians of the normed input, beside a branch of SiLU.

    .. math:: y_o = b_o + \sum_i u_{oi}\,\mathrm{SiLU}(x_i) + \sum_{i,g} w_{oig} \exp(-((n_i - \mu_g) / D)^2)

    ``n`` is the layer norm of ``x``, ``D`` the spacing of the centres. Other than in
    :class:`vik_mm.layers.RBFKANLayer`, centres and widths are not learned, and the exponent has no factor 1/2.

    Args:
        in_features (int): ``I``.
        out_features (int): ``O``.
        num_grids (int): ``G``.
        grid_range (tuple[float, float]): First and last centre, in units of the normed input.
        backend (str, optional): Backend of :func:`vik_mm.ops.rbf_kan`; None chooses.

    Shape:
        - Input: ``[R, I]``.
        - Output: ``[R, O]``.
    """

    grid: Tensor

    def __init__(
        self, in_features: int, out_features: int, num_grids: int, grid_range: tuple[float, float], backend: str | None
    ):
        super().__init__()
        self.num_bases = num_grids
        self.backend = backend
        self.norm = nn.LayerNorm(in_features)
        self.register_buffer('grid', torch.linspace(*grid_range, num_grids))
        self.weight = nn.Parameter(torch.empty(out_features, in_features * num_grids))
        self.base = nn.Linear(in_features, out_features)
        nn.init.trunc_normal_(self.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[R, I]`` to ``[R, O]``."""
        centers = self.grid.expand(x.shape[1], -1)
        # exp(-(t / D)^2) is a Gaussian of standard deviation D / sqrt(2).
        widths = ((self.grid[1] - self.grid[0]) / 2**0.5).expand_as(centers)
        return rbf_kan(self.norm(x), centers, widths, self.weight.t(), backend=self.backend) + self.base(F.silu(x))


@MODELS.register_module()
class FastKAN(KANMLP):
    """Two Kolmogorov-Arnold layers over Gaussians with fixed centres.

    Its weights are ``num_grids + 1`` times those of :class:`ConvMLP` with the same hidden channels; ``mlp_ratio=0.5``
    makes it comparable.

    Args:
        embed_dims (int): Channels ``C`` of input and output.
        hidden_dims (int): Channels between the two layers.
        act_cfg (dict): Not used: the layers are activations themselves. Defaults to ``dict(type='GELU')``.
        drop_rate (float): Dropout after each layer. Defaults to 0.
        num_grids (int): Gaussians of each input. Defaults to 8.
        grid_range (tuple[float, float]): First and last centre, in units of the normed input. Defaults to (-2.0, 2.0).
        backend (str, optional): Backend of :func:`vik_mm.ops.rbf_kan`; None chooses. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Raises:
        BadInputError: If ``num_grids < 2`` or ``grid_range`` does not increase.

    Source:
        arXiv 2503.01124 names the layer; the layer is Ziyao Li's fast-kan, whose weights can be loaded.
    """

    original_names = (
        (r'\.norm\.', '.layernorm.'),
        (r'\.grid$', '.rbf.grid'),
        (r'(layers\.\d+)\.weight$', r'\1.spline_linear.weight'),
        (r'\.base\.', '.base_linear.'),
    )

    def __init__(
        self,
        embed_dims: int,
        hidden_dims: int,
        act_cfg: dict = dict(type='GELU'),
        drop_rate: float = 0.0,
        num_grids: int = 8,
        grid_range: tuple[float, float] = (-2.0, 2.0),
        backend: str | None = None,
    ):
        if num_grids < 2:
            raise BadInputError(f'num_grids={num_grids}: the width is the spacing of at least 2 Gaussians')
        if not grid_range[0] < grid_range[1]:
            raise BadInputError(f'grid_range={tuple(grid_range)} must increase')
        layers = (
            FastKANLayer(embed_dims, hidden_dims, num_grids, grid_range, backend),
            FastKANLayer(hidden_dims, embed_dims, num_grids, grid_range, backend),
        )
        super().__init__(layers, embed_dims, hidden_dims, act_cfg, drop_rate)
