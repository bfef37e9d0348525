"""What a transformer's block may mix its tokens with.

Shape letters: ``B`` images, ``N`` tokens, ``C`` channels, ``H`` and ``W`` height and width of the tokens' grid,
``I`` and ``J`` windows along them, ``S`` a window's side.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

from vik_mm.ops import is_traced

from .karat import KArAt


class TokenAttention(MultiheadAttention):
    """Multi-head self-attention whose rows of scores go through softmax or a learnable operator.

    Projections, dropout, drop path and layer scale, and the names of their parameters, are those of MMPretrain's
    ``MultiheadAttention``, so that checkpoints of its transformers load.

    Args:
        operator (KArAt, optional): The operator in the place of softmax; None is softmax, through
            ``scaled_dot_product_attention``, unless :meth:`forward` is given one. Defaults to None.
        window_size (int): Side of windows of the tokens' grid that attend to themselves alone, the last of a row and
            column filled up with zeros; 0 for the whole grid. Defaults to 0.
        **kwargs: Arguments of ``mmpretrain.models.utils.MultiheadAttention``.

    Shape:
        - Input and output: ``[B, N, C]``.
    """

    def __init__(self, *, operator: KArAt | None = None, window_size: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.operator = operator
        self.window_size = window_size
        for layer in (self.qkv, self.proj):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, token_grid: tuple[int, int] | None = None, operator: KArAt | None = None) -> Tensor:
        """Mix ``[B, N, C]``.

        Args:
            x (Tensor): ``[B, N, C]``.
            token_grid (tuple[int, int], optional): ``H`` and ``W``, where they are not the operator's, or there are
                windows. Defaults to None.
            operator (KArAt, optional): An operator that several blocks share. Defaults to None.

        Returns:
            Tensor: ``[B, N, C]``.
        """
        if not self.window_size:
            return self._attend(x, token_grid, self.operator or operator)
        (height, width), side = token_grid, self.window_size
        x = F.pad(x.unflatten(1, token_grid), (0, 0, 0, -width % side, 0, -height % side))
        windows = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)  # [B, I, J, S, S, C]
        answers = self._attend(windows.flatten(3, 4).flatten(0, 2), (side, side), self.operator or operator)
        answers = answers.view(windows.shape).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return answers[:, :height, :width].flatten(1, 2)

    def _attend(self, x: Tensor, token_grid: tuple[int, int] | None, operator: KArAt | None) -> Tensor:
        q, k, v = self.project(x)
        dropout = self.attn_drop if self.training else 0.0
        if operator is None:
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        else:
            # Of strided views, products would keep copies beside them.
            q, k, v = (t.contiguous() for t in (q, k, v))
            scores = self.scores(q, k)
            with _recomputed(scores, lambda: self.scores(q, k)):
                if dropout:
                    x = F.dropout(operator(scores, token_grid), dropout) @ v
                else:
                    x = operator.attend(scores, v, token_grid)
        x = self.proj(x.transpose(1, 2).flatten(2))
        return self.out_drop(self.gamma1(self.proj_drop(x)))

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Compute ``Q K^T / sqrt(C / heads)``, ``[B, heads, N, N]``."""
        return (q @ k.transpose(-1, -2)).mul_(self.head_dims**-0.5)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values, each ``[B, heads, N, C / heads]``."""
        return tuple(self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind())


@contextmanager
def _recomputed(tensor: Tensor, compute: Callable[[], Tensor]) -> Iterator[None]:
    """Have autograd compute a tensor again in the backward pass, instead of keeping it, wherever it is needed inside.

    A map of scores takes more memory than the queries and keys it is made of, and little time beside what follows.
    """
    if is_traced() or not tensor.requires_grad:
        yield
        return
    address, shape, dtype = tensor.data_ptr(), tensor.shape, tensor.dtype

    def pack(saved):
        return None if (saved.data_ptr(), saved.shape, saved.dtype) == (address, shape, dtype) else saved

    def unpack(packed):
        with torch.no_grad():
            return compute() if packed is None else packed

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
