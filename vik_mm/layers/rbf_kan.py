"""Kolmogorov-Arnold layer with a Gaussian basis."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import patch_rbf_kan, rbf_kan

# Keeps a width that training drove towards zero from dividing by zero, as in the release.
WIDTH_FLOOR = 1e-6


class RBFKANLayer(nn.Module):
    r"""Kolmogorov-Arnold layer over learned Gaussian features of each input, beside a linear base branch.

    .. math::
        y_o = \beta_o + \sum_f v_{of}\,\mathrm{SiLU}(x_f)
              + \sum_{f,g} w_{(f,g),o} \exp(-\tfrac12 ((x_f - \mu_{fg}) / \sigma_{fg})^2)

    Args:
        in_features (int): ``F``, size of the last input dimension.
        out_features (int): ``O``, size of the last output dimension.
        num_grids (int): ``G``, Gaussians per input. Defaults to 8.
        grid_range (tuple[float, float]): First and last centre at the start, in units of the input.
            Defaults to (-2.0, 2.0).
        backend (str, optional): Backend of :func:`vik_mm.ops.rbf_kan`; None chooses. Defaults to None.

    Shape:
        - Input: ``[..., F]``, any floating dtype.
        - Output: ``[..., O]``.

    Raises:
        BadInputError: If ``num_grids < 2`` or ``grid_range`` does not increase.

    Source:
        arXiv 2601.21541; ``RBFKANLayer`` of the authors' ``vik.py``, with the same start values.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_grids: int = 8,
        grid_range: tuple[float, float] = (-2.0, 2.0),
        backend: str | None = None,
    ):
        super().__init__()
        if num_grids < 2:
            raise BadInputError(f'num_grids={num_grids}: the widths are set by the spacing of at least 2 Gaussians')
        first, last = grid_range
        if not first < last:
            raise BadInputError(f'grid_range={tuple(grid_range)} must increase')
        self.backend = backend
        spacing = (last - first) / (num_grids - 1)
        self.centers = nn.Parameter(torch.linspace(first, last, num_grids).repeat(in_features, 1))
        self.log_widths = nn.Parameter(torch.full((in_features, num_grids), spacing + WIDTH_FLOOR).log())
        self.weight = nn.Parameter(0.1 * torch.randn(in_features * num_grids, out_features))
        self.base = nn.Linear(in_features, out_features)
        nn.init.trunc_normal_(self.base.weight, std=0.02)
        nn.init.zeros_(self.base.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., F]`` to ``[..., O]``."""
        return rbf_kan(x, self.centers, self.widths, self.weight, backend=self.backend) + self.base(F.silu(x))

    @property
    def widths(self) -> Tensor:
        """Standard deviations of the Gaussians, ``[F, G]``."""
        return self.log_widths.exp() + WIDTH_FLOOR


def add_to_patches(x: Tensor, layer: RBFKANLayer, patch_size: int) -> Tensor:
    """Compute ``patch + layer(patch)`` for each patch of a map, in one pass over the map.

    Args:
        x (Tensor): ``[B, C, H, W]``.
        layer (RBFKANLayer): With ``P * P`` in and out features, the pixels of a patch read row by row.
        patch_size (int): ``P``, in pixels.

    Returns:
        Tensor: ``[B, C, H, W]``; see :func:`vik_mm.ops.patch_rbf_kan`.
    """
    gaussians = (layer.centers, layer.widths, layer.weight)
    return patch_rbf_kan(x, *gaussians, layer.base.weight, layer.base.bias, patch_size, backend=layer.backend)
