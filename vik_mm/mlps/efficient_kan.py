"""B-spline KAN as a channel MLP.

Shape letters: ``R`` rows, one for each pixel, ``I`` in features, ``O`` out features, ``N`` splines of an input.
"""

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import linear
from vik_mm.ops.backends import compute_dtype

from .base import KANMLP
from .strips import map_strips

ORDER = 3
NOISE = 0.1


class SplineLayer(nn.Module):
    r"""Kolmogorov-Arnold layer over cubic B-splines with evenly spaced knots, beside a branch of SiLU.

    .. math:: y_o = \sum_i u_{oi}\,\mathrm{SiLU}(x_i) + \sum_i s_{oi} \sum_n w_{oin} B_n(x_i)

    The splines add up to 1 inside of ``grid_range`` and fall to 0 within three knots outside of it: beyond, only the
    branch of SiLU acts.

    Args:
        in_features (int): ``I``.
        out_features (int): ``O``.
        num_intervals (int): Intervals of ``grid_range``; ``N`` is three more.
        grid_range (tuple[float, float]): First and last inner knot, in units of the input.

    Shape:
        - Input: ``[R, I]``.
        - Output: ``[R, O]``; splines are computed in float32 at least.
    """

    grid: Tensor

    def __init__(self, in_features: int, out_features: int, num_intervals: int, grid_range: tuple[float, float]):
        super().__init__()
        first, last = grid_range
        self.num_bases = num_intervals + ORDER
        spacing = (last - first) / num_intervals
        knots = first + spacing * torch.arange(-ORDER, num_intervals + ORDER + 1, dtype=torch.float64)
        self.register_buffer('grid', knots.float())
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, self.num_bases))
        self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features))
        for weight in (self.base_weight, self.spline_scaler):
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        # The least-squares spline through small noise at the inner knots.
        inner = torch.arange(ORDER, num_intervals + ORDER + 1, dtype=torch.float64, device='cpu')
        fit = torch.linalg.pinv(cubic_splines(inner[None], self.num_bases))
        noise = (torch.rand(out_features, in_features, num_intervals + 1) - 0.5) * NOISE / num_intervals
        self.spline_weight.data.copy_(noise @ fit.to(noise))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[R, I]`` to ``[R, O]``."""
        return map_strips(self._map, x, 3 * self.num_bases * x.shape[1])  # the splines, and what they are made of

    def _map(self, x: Tensor) -> Tensor:
        grid = self.grid.to(compute_dtype(x))
        position = (x.to(grid.dtype) - grid[0]) / (grid[1] - grid[0])
        splines = cubic_splines(position.unsqueeze(1), self.num_bases).flatten(1).to(x.dtype)
        weight = (self.spline_weight * self.spline_scaler.unsqueeze(2)).transpose(1, 2).flatten(1)  # [O, N * I]
        return linear(F.silu(x), self.base_weight) + linear(splines, weight)


def cubic_splines(position: Tensor, num_splines: int) -> Tensor:
    """Evaluate cubic B-splines over the knots 0, 1, 2, ...; spline ``n`` reaches from knot ``n`` to ``n + 4``.

    Args:
        position (Tensor): ``[..., 1, I]``, in units of the knots.
        num_splines (int): ``N``.

    Returns:
        Tensor: ``[..., N, I]``.
    """
    middles = torch.arange(2, num_splines + 2, device=position.device, dtype=position.dtype)
    distance = (position - middles.unsqueeze(1)).abs()
    # The two cubics of each half: (2 - d)^3 / 6, less 4 / 6 (1 - d)^3 inside.
    outer, inner = F.relu(2 - distance), F.relu(1 - distance)
    return (outer * outer * outer - 4 * inner * inner * inner) / 6


@MODELS.register_module()
class EfficientKAN(KANMLP):
    """Two Kolmogorov-Arnold layers over cubic B-splines.

    Its weights are ``num_intervals + 5`` times those of :class:`ConvMLP` with the same hidden channels;
    ``mlp_ratio=0.5`` makes it comparable.

    Args:
        embed_dims (int): Channels ``C`` of input and output.
        hidden_dims (int): Channels between the two layers.
        act_cfg (dict): Not used: the layers are activations themselves. Defaults to ``dict(type='GELU')``.
        drop_rate (float): Dropout after each layer. Defaults to 0.
        num_intervals (int): Intervals between the inner knots. Defaults to 5.
        grid_range (tuple[float, float]): First and last inner knot, in units of the input. A third of a normed input
            lies outside of the default. Defaults to (-1.0, 1.0).

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Raises:
        BadInputError: If ``num_intervals < 1`` or ``grid_range`` does not increase.

    Source:
        arXiv 2503.01124 names the layer; the layer is Blealtan's efficient-kan, whose weights can be loaded. Knots that
        were moved to the data (``update_grid``) cannot.
    """

    def __init__(
        self,
        embed_dims: int,
        hidden_dims: int,
        act_cfg: dict = dict(type='GELU'),
        drop_rate: float = 0.0,
        num_intervals: int = 5,
        grid_range: tuple[float, float] = (-1.0, 1.0),
    ):
        if num_intervals < 1:
            raise BadInputError(f'num_intervals={num_intervals} must be at least 1')
        if not grid_range[0] < grid_range[1]:
            raise BadInputError(f'grid_range={tuple(grid_range)} must increase')
        layers = (
            SplineLayer(embed_dims, hidden_dims, num_intervals, grid_range),
            SplineLayer(hidden_dims, embed_dims, num_intervals, grid_range),
        )
        super().__init__(layers, embed_dims, hidden_dims, act_cfg, drop_rate)

    def from_original(self, name: str, value: Tensor) -> Tensor:
        """Take the knots of one input for all.

        Raises:
            BadInputError: If inputs have knots of their own, or knots are not evenly spaced.
        """
        if not name.endswith('.grid') or value.ndim != 2 or value.shape[1] < 2:
            return value
        steps = value.diff(dim=1)
        if not (torch.allclose(value, value[:1].expand_as(value)) and torch.allclose(steps, steps[:1, :1], atol=1e-5)):
            raise BadInputError(
                f'the knots {name} of the state dict were moved to the data (update_grid); EfficientKAN has evenly '
                'spaced knots, the same for all inputs: give weights that were trained without update_grid'
            )
        return value[0]
