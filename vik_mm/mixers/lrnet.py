"""Local relation, the token mixer of LR-Net.

Shape letters: ``B`` images, ``C`` channels, ``G`` groups of ``m = C / G`` channels, ``K`` side of the window.
"""

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .base import TokenMixer
from .convolutions import check_divides, check_odd
from .shifts import shifted_sum

SIMILARITIES = {
    'multiply': torch.mul,
    'squared': lambda q, k: -((q - k) ** 2),
    'abs': lambda q, k: -(q - k).abs(),
}


@MODELS.register_module()
class LocalRelation(TokenMixer):
    r"""Mean over a window, weighed by how each neighbour resembles the pixel and by where it stands.

    .. math:: y_{cp} = \sum_\delta a_{g(c) p \delta} x_{c, p + \delta}, \qquad
        a_{gp\delta} = \mathrm{softmax}_\delta (\Phi(q_{gp}, k_{g, p + \delta}) + P_{g \delta})

    Queries and keys have one number for each group of channels. The softmax is over the pixels of the window that lie
    in the map.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: the layer is the same at every size.
        window_size (int): ``K``, in pixels, odd. Defaults to 7.
        channels_per_group (int): ``m``, channels that share their weights. Defaults to 8.
        similarity (str): ``Phi``: 'multiply' is ``q k``, 'squared' ``-(q - k) ** 2``, 'abs' ``-|q - k|``.
            Defaults to 'multiply', as in the authors' operator.
        prior (str): Where ``P`` comes from: 'mlp' is a network of the offset, which is 1 at the window's edge; 'table'
            is a learned number for each offset, zero at the start. Defaults to 'mlp'.
        prior_dims (int): Hidden units of that network. Defaults to 32.
        proj (bool): Whether there are 1x1 convolutions before and after; in LR-Net they belong to the block.
            Defaults to False.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``channels_per_group`` does not divide ``C``, or an option is out of its range.

    Source:
        arXiv 1904.11491; the operator is that of ``ops/local_relation`` in microsoft/Swin-Transformer (branch LR-Net,
        commit be50b6c, MIT). The authors released no layer around it: projections and the prior's network follow the
        paper as recalled; the prior's width and the unit of offsets are this project's. The operator gives pixels
        outside of the map the score -100; here they are left out, which differs where other scores are as low.
    """

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        window_size: int = 7,
        channels_per_group: int = 8,
        similarity: str = 'multiply',
        prior: str = 'mlp',
        prior_dims: int = 32,
        proj: bool = False,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        check_odd('window_size', window_size)
        check_divides('channels_per_group', channels_per_group, embed_dims)
        if similarity not in SIMILARITIES:
            raise BadInputError(f'similarity={similarity!r} is unknown; choose one of {list(SIMILARITIES)}')
        if prior not in ('mlp', 'table'):
            raise BadInputError(f"prior={prior!r} is unknown; choose 'mlp' or 'table'")
        if prior_dims < 1:
            raise BadInputError(f'prior_dims={prior_dims} must be at least 1')
        groups = embed_dims // channels_per_group
        # Not window_size: PolyphaseAnchoring takes a mixer that has one for one whose windows stand side by side.
        self.kernel_size, self.similarity, self.prior = window_size, similarity, prior
        self.query = nn.Conv2d(embed_dims, groups, 1)
        self.key = nn.Conv2d(embed_dims, groups, 1)
        if prior == 'mlp':
            self.prior_net = nn.Sequential(nn.Linear(2, prior_dims), nn.ReLU(), nn.Linear(prior_dims, groups))
            offset = torch.arange(window_size) - window_size // 2
            offsets = torch.cartesian_prod(offset, offset) / max(window_size // 2, 1)
            self.register_buffer('offsets', offsets, persistent=False)
        else:
            self.prior_table = nn.Parameter(torch.zeros(groups, window_size, window_size))
        self.value = nn.Conv2d(embed_dims, embed_dims, 1) if proj else nn.Identity()
        self.proj = nn.Conv2d(embed_dims, embed_dims, 1) if proj else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        mixed = local_relation(self.query(x), self.key(x), self.value(x), self.position_prior(), self.similarity)
        return self.proj(mixed)

    def position_prior(self) -> Tensor:
        """Give ``P``, ``[G, K, K]``, indexed as the kernel of a convolution is."""
        if self.prior == 'table':
            return self.prior_table
        values = self.prior_net(self.offsets)  # [K K, G]
        return values.t().unflatten(1, (self.kernel_size, self.kernel_size))


def local_relation(q: Tensor, k: Tensor, v: Tensor, prior: Tensor, similarity: str = 'multiply') -> Tensor:
    """Weigh the pixels of a window around each pixel.

    Args:
        q (Tensor): Queries, ``[B, G, H, W]``.
        k (Tensor): Keys, ``[B, G, H, W]``.
        v (Tensor): Values, ``[B, C, H, W]``; channels of a group stand side by side.
        prior (Tensor): Added to the scores, ``[G, K, K]``.
        similarity (str): One of :data:`SIMILARITIES`. Defaults to 'multiply'.

    Returns:
        Tensor: ``[B, C, H, W]``.
    """
    groups, side, _ = prior.shape
    height, width = q.shape[2:]
    margin = (side // 2,) * 4
    columns = F.pad(k, margin)
    columns = torch.stack([columns[..., j : j + width] for j in range(side)], dim=2)
    keys = torch.stack([columns[..., i : i + height, :] for i in range(side)], dim=2)  # [B, G, K, K, H, W]
    scores = SIMILARITIES[similarity](q[:, :, None, None], keys) + prior[..., None, None]
    rows, columns = (_is_outside(length, side, q.device) for length in (height, width))
    outside = rows[:, None, :, None] | columns[None, :, None, :]  # [K, K, H, W]
    weights = scores.masked_fill(outside, -torch.inf).flatten(2, 3).softmax(dim=2)
    values = F.pad(v.unflatten(1, (groups, -1)), margin)  # [B, G, m, H + K - 1, W + K - 1]
    return shifted_sum(weights, values, [(i, j) for i in range(side) for j in range(side)]).flatten(1, 2)


def _is_outside(length: int, side: int, device: torch.device) -> Tensor:
    """Tell which neighbours along an axis the map does not have, ``[K, length]``."""
    neighbours = torch.arange(length, device=device) + torch.arange(side, device=device)[:, None] - side // 2
    return (neighbours < 0) | (neighbours >= length)
