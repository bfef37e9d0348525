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

from vik_mm.errors import BadInputError
from vik_mm.ops import is_traced

from .karat import KArAt


class TokenAttention(MultiheadAttention):
    """Multi-head self-attention whose rows of scores go through softmax or a learnable operator.

    Projections, dropout, drop path and layer scale, and the names of their parameters, are those of MMPretrain's
    ``MultiheadAttention``, so that checkpoints of its transformers load.

    Args:
        operator (KArAt, optional): The operator instead of softmax; None is softmax, through
            ``scaled_dot_product_attention``, unless :meth:`forward` is given one. Defaults to None.
        window_size (int): Side of windows of the tokens' grid that attend only to themselves; the last of a row and
            column are filled up with zeros. 0 for the whole grid. Defaults to 0.
        recompute (bool): Whether queries, keys, values and scores of an operator are computed again in the backward
            pass instead of kept. Set it to False where the whole block is computed again. Defaults to True.
        **kwargs: Arguments of ``mmpretrain.models.utils.MultiheadAttention``.

    Shape:
        - Input and output: ``[B, N, C]``.
    """

    def __init__(self, *, operator: KArAt | None = None, window_size: int = 0, recompute: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.operator = operator
        self.window_size = window_size
        self.recompute = recompute
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
        if token_grid is None:
            raise BadInputError('windows need the height and width of the grid of tokens: give token_grid')
        (height, width), side = token_grid, self.window_size
        x = F.pad(x.unflatten(1, token_grid), (0, 0, 0, -width % side, 0, -height % side))
        windows = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)  # [B, I, J, S, S, C]
        answers = self._attend(windows.flatten(3, 4).flatten(0, 2), (side, side), self.operator or operator)
        answers = answers.view(windows.shape).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return answers[:, :height, :width].flatten(1, 2)

    def _attend(self, x: Tensor, token_grid: tuple[int, int] | None, operator: KArAt | None) -> Tensor:
        dropout = self.attn_drop if self.training else 0.0
        if operator is None:
            q, k, v = self.project(x)
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        else:
            x = self._operate(x, token_grid, operator, dropout)
        x = self.proj(x.transpose(1, 2).flatten(2))
        return self.out_drop(self.gamma1(self.proj_drop(x)))

    def _operate(self, x: Tensor, token_grid: tuple[int, int] | None, operator: KArAt, dropout: float) -> Tensor:
        """Compute ``operator(Q K^T / sqrt(C / heads)) V``, ``[B, N, C] -> [B, heads, N, C / heads]``."""

        def weigh():
            if dropout:
                return F.dropout(operator(scores, token_grid), dropout) @ v
            return operator.attend(scores, v, token_grid)

        # Of strided views, products would keep copies beside them.
        qkv = self._contiguous(x)
        q, k, v = qkv.unbind()
        if not self.recompute or is_traced() or not qkv.requires_grad:
            scores = self.scores(q, k)
            return weigh()
        in_context = _autocast_of(x)
        projections = _Recomputed(qkv, lambda: in_context(self._contiguous, x))
        with projections.saved_instead():
            scores = self.scores(q, k)
        maps = _Recomputed(scores, lambda: in_context(self.scores, *projections.value()[:2]))
        with maps.saved_instead(projections):
            return weigh()

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Compute ``Q K^T / sqrt(C / heads)``, ``[B, heads, N, N]``."""
        # The product scales its answer on the way.
        shape = (*q.shape[:-1], k.shape[-2])
        q, k = q.flatten(0, 1), k.flatten(0, 1).transpose(-1, -2)
        return torch.baddbmm(q.new_empty(()), q, k, beta=0, alpha=self.head_dims**-0.5).view(shape)

    def project(self, x: Tensor) -> Tensor:
        """Compute queries, keys and values, ``[B, N, C] -> [3, B, heads, N, C / heads]``."""
        return self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def _contiguous(self, x: Tensor) -> Tensor:
        return self.project(x).contiguous()


class _Recomputed:
    """A tensor that autograd computes again in the backward pass instead of keeping it.

    A map of scores takes more memory than the queries and keys that it is made of, they take more than the tokens that
    they are made of, and both are cheap beside what follows. Under ``torch.utils.checkpoint``, all that follows would
    be computed again too.

    Args:
        tensor (Tensor): What not to keep, in a storage of its own.
        compute (Callable[[], Tensor]): Computes it, bit by bit the same.
    """

    def __init__(self, tensor: Tensor, compute: Callable[[], Tensor]):
        self._storage = tensor.untyped_storage().data_ptr()
        self._compute = compute
        self._value: Tensor | None = None
        self._num_saved = self._num_left = 0

    def value(self) -> Tensor:
        """Compute the tensor; it stays until all that was saved of it has been asked for."""
        if self._value is None:
            with torch.no_grad():
                self._value = self._compute()
        return self._value

    def _pack(self) -> None:
        self._num_saved += 1
        self._num_left += 1

    def _unpack(self, size: torch.Size, stride: tuple[int, ...], offset: int) -> Tensor:
        view = self.value().as_strided(size, stride, offset)
        self._num_left -= 1
        if not self._num_left:  # the graph may be walked again
            self._value, self._num_left = None, self._num_saved
        return view

    @contextmanager
    def saved_instead(self, *others: '_Recomputed') -> Iterator[None]:
        """Let autograd save how to compute this tensor, others and their views, instead of the tensors."""
        by_storage = {each._storage: each for each in (self, *others)}

        def pack(saved):
            each = by_storage.get(saved.untyped_storage().data_ptr())
            if each is None:
                return saved
            each._pack()
            return each, saved.size(), saved.stride(), saved.storage_offset()

        def unpack(packed):
            return packed if isinstance(packed, Tensor) else packed[0]._unpack(*packed[1:])

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield


def _autocast_of(x: Tensor) -> Callable:
    """Keep autocast's state: the backward pass runs outside of it. Returns ``run(function, *arguments)``."""
    device = x.device.type
    is_on, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def run(function, *arguments):
        with torch.autocast(device, dtype, enabled=is_on):
            return function(*arguments)

    return run
