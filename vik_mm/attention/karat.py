"""The learnable operator that Kolmogorov-Arnold attention has instead of softmax.

Shape letters: ``B`` images, ``H`` heads, ``T`` rows of a head, ``N`` tokens, ``R`` hidden features, ``D`` channels of a
head.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops.backends import compute_dtype

from .bases import BASES

BASE_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {'zero': None, 'silu': F.silu, 'identity': lambda x: x}


class KArAt(nn.Module):
    r"""Learnable operator on the rows of a score matrix, one for each head.

    .. math::
        \sigma(a) = W \Phi(a), \qquad
        \Phi(a)_p = \sum_q \bigl( w^b_{pq}\, b(a_q) + w^s_{pq}\, f_{pq}(a_q) \bigr)

    ``Phi`` goes from ``N`` tokens to ``R`` hidden features, ``W`` back, so that ``sigma(A) V`` is computed as
    ``Phi(A) (W^T V)``: the map of attention weights never exists unless it is asked for.

    At the start ``Phi`` has variance one and ``W`` variance ``1 / (N R)``: the squares of a row of ``sigma(A)`` sum
    up to one, and an answer has the variance of the values. The release of the paper's authors is not public; these
    start values are this project's.

    The operator is made for one number of tokens. For another grid of tokens, its parameters are resampled bicubically
    along the tokens, as position embeddings are. Their sums stay.

    Args:
        num_heads (int): ``H``.
        token_grid (tuple[int, int]): Height and width of the tokens' grid.
        num_prefix_tokens (int): Tokens before those of the grid, the class token. Defaults to 1.
        basis (str): One of :data:`vik_mm.attention.bases.BASES`. Defaults to 'fourier'.
        base_activation (str): ``b``: 'zero', 'silu' or 'identity'. With 'zero', ``w^b`` is kept, without gradient: the
            paper counts it. Defaults to 'zero'.
        grid_size (int): ``G``, frequencies of Fourier; intervals of splines, wavelets of an edge, or of rational
            functions the numerator's degree less 2. Defaults to 3.
        hidden_dim (int): ``R``. Defaults to 12.
        resample (bool): Whether to take other grids. Defaults to True.
        backend (str, optional): Backend of :func:`vik_mm.ops.fourier_kan`, for the Fourier basis; None chooses.
            Defaults to None.

    Shape:
        - Scores: ``[B, H, T, N]``.
        - Output: ``[B, H, T, N]``.

    Raises:
        BadInputError: If ``basis`` or ``base_activation`` is unknown, ``grid_size`` less than 1, or ``hidden_dim`` not
            between 1 and the number of tokens.

    Source:
        arXiv 2503.10632.
    """

    def __init__(
        self,
        num_heads: int,
        token_grid: tuple[int, int],
        num_prefix_tokens: int = 1,
        basis: str = 'fourier',
        base_activation: str = 'zero',
        grid_size: int = 3,
        hidden_dim: int = 12,
        resample: bool = True,
        backend: str | None = None,
    ):
        super().__init__()
        num_tokens = num_prefix_tokens + math.prod(token_grid)
        if basis not in BASES:
            raise BadInputError(f'basis={basis!r} is unknown; choose one of {sorted(BASES)}')
        if base_activation not in BASE_ACTIVATIONS:
            raise BadInputError(
                f'base_activation={base_activation!r} is unknown; choose one of {sorted(BASE_ACTIVATIONS)}'
            )
        if grid_size < 1:
            raise BadInputError(f'grid_size={grid_size} must be at least 1')
        if not 1 <= hidden_dim <= num_tokens:
            raise BadInputError(f'hidden_dim={hidden_dim} must be from 1 to the number of tokens, {num_tokens}')
        self.num_heads, self.token_grid = num_heads, tuple(token_grid)
        self.num_prefix_tokens, self.num_tokens = num_prefix_tokens, num_tokens
        self.base_activation, self.resample = base_activation, resample
        if backend is not None and basis != 'fourier':
            raise BadInputError(f"backend={backend!r} is a backend of basis='fourier', the basis is {basis!r}")
        options = dict(backend=backend) if backend is not None else {}
        self.basis = BASES[basis](num_heads, num_tokens, hidden_dim, grid_size, **options)
        self.scale = nn.Parameter(torch.ones(num_heads, num_tokens, hidden_dim))
        base = torch.randn(num_heads, num_tokens, hidden_dim) * num_tokens**-0.5
        self.base_weight = nn.Parameter(base, requires_grad=base_activation != 'zero')
        out = torch.randn(num_heads, num_tokens, hidden_dim) * (num_tokens * hidden_dim) ** -0.5
        self.out_weight = nn.Parameter(out)
        self._register_load_state_dict_pre_hook(self._resample_state_dict)

    def forward(self, scores: Tensor, token_grid: tuple[int, int] | None = None) -> Tensor:
        """Give the attention weights, ``[B, H, T, N] -> [B, H, T, N]``."""
        return self.hidden(scores, token_grid) @ self._out_weight(token_grid, scores.dtype)

    def attend(self, scores: Tensor, values: Tensor, token_grid: tuple[int, int] | None = None) -> Tensor:
        """Weigh values without making the weights, ``[B, H, T, N], [B, H, N, D] -> [B, H, T, D]``.

        Args:
            scores (Tensor): ``Q K^T / sqrt(D)``.
            values (Tensor): ``V``.
            token_grid (tuple[int, int], optional): Height and width of this grid; None is the operator's own.
                Defaults to None.

        Returns:
            Tensor: ``[B, H, T, D]``.

        Raises:
            BadInputError: If the number of tokens is another than the operator's, and ``resample`` is off or
                ``token_grid`` does not fit it.
        """
        return self.hidden(scores, token_grid) @ (self._out_weight(token_grid, values.dtype) @ values)

    def hidden(self, scores: Tensor, token_grid: tuple[int, int] | None = None) -> Tensor:
        """Compute ``Phi``, ``[B, H, T, N] -> [B, H, T, R]``."""
        self._check(scores, token_grid)
        weights = self._resampled(self.basis.coefficients * self.scale.unsqueeze(1), token_grid, sums=True)
        shapes = [self._resampled(shape, token_grid, sums=False) for shape in self.basis.shapes]
        hidden = self.basis(scores, weights, shapes)
        activation = BASE_ACTIVATIONS[self.base_activation]
        if activation is None:
            return hidden
        base_weight = self._resampled(self.base_weight, token_grid, sums=True)
        return hidden + activation(scores) @ base_weight.to(scores.dtype)

    def extra_repr(self) -> str:
        """Tell what the parameters' shapes do not."""
        return f'num_heads={self.num_heads}, token_grid={self.token_grid}, base_activation={self.base_activation!r}'

    def _check(self, scores: Tensor, token_grid: tuple[int, int] | None) -> None:
        num_tokens = self.num_prefix_tokens + math.prod(token_grid or self.token_grid)
        if scores.shape[-1] != num_tokens:
            raise BadInputError(
                f'scores of {scores.shape[-1]} tokens do not fit a grid {token_grid or self.token_grid} with '
                f'{self.num_prefix_tokens} tokens before it; give token_grid'
            )
        if not self.resample and token_grid and tuple(token_grid) != self.token_grid:
            raise BadInputError(
                f'this operator is for a grid {self.token_grid} of tokens, the input has {tuple(token_grid)}; '
                f'resample=True resamples the operator, or give images of the size that it was made for'
            )

    def _out_weight(self, token_grid: tuple[int, int] | None, dtype: torch.dtype) -> Tensor:
        """``W^T``, ``[H, R, N]``."""
        return self._resampled(self.out_weight, token_grid, sums=True).transpose(-1, -2).to(dtype)

    def _resampled(self, parameter: Tensor, token_grid: tuple[int, int] | None, sums: bool) -> Tensor:
        """Resample ``[..., N, R]`` along the tokens; ``sums`` keeps the sum over the grid instead of the values."""
        if token_grid is None or tuple(token_grid) == self.token_grid:
            return parameter
        height, width = self.token_grid
        return resample_tokens(parameter, self.num_prefix_tokens, (height, width), token_grid, sums)

    def _resample_state_dict(self, state_dict, prefix, *_):
        """Resample the operator of a checkpoint made for another square grid."""
        height, width = self.token_grid
        for name, own in self.named_parameters():
            found = state_dict.get(prefix + name)
            if found is None or found.shape == own.shape or found.ndim != own.ndim or not self.resample:
                continue
            tokens = found.shape[-2] - self.num_prefix_tokens
            if not self.num_prefix_tokens and math.isqrt(tokens) ** 2 != tokens:
                found, tokens = found[..., 1:, :], tokens - 1  # a class token, which is not used here
            side = math.isqrt(tokens)
            others_agree = found.shape[:-2] == own.shape[:-2] and found.shape[-1] == own.shape[-1]
            if side**2 != tokens or not others_agree:
                continue  # another operator, not another size: load_state_dict says so
            sums = not name.startswith('basis.shapes') and name != 'scale'
            if (side, side) != (height, width):
                found = resample_tokens(found, self.num_prefix_tokens, (side, side), (height, width), sums)
            state_dict[prefix + name] = found


def resample_tokens(
    parameter: Tensor, num_prefix_tokens: int, old: tuple[int, int], new: tuple[int, int], sums: bool
) -> Tensor:
    """Resample a parameter along its tokens bicubically.

    Args:
        parameter (Tensor): ``[..., N, R]``.
        num_prefix_tokens (int): Tokens before those of the grid; they stay as they are.
        old (tuple[int, int]): Height and width of the grid.
        new (tuple[int, int]): Those to go to.
        sums (bool): Whether the sum over the grid is to stay, as for what is summed over tokens, or the values.

    Returns:
        Tensor: ``[..., N', R]``.
    """
    prefix, grid = parameter[..., :num_prefix_tokens, :], parameter[..., num_prefix_tokens:, :]
    rows = grid.transpose(-1, -2)  # [..., R, tokens]
    maps = rows.reshape(-1, 1, *old).to(compute_dtype(rows))  # CPUs can do this only in float32
    maps = F.interpolate(maps, new, mode='bicubic', align_corners=False, antialias=True).to(rows.dtype)
    maps = maps.view(*rows.shape[:-1], -1)
    if sums:
        maps = maps * (math.prod(old) / math.prod(new))
        maps = maps + (rows.sum(-1, keepdim=True) - maps.sum(-1, keepdim=True)) / math.prod(new)
    return torch.cat([prefix, maps.transpose(-1, -2)], dim=-2)
