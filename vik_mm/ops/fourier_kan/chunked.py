"""The Fourier KAN operator in blocks of rows, so that the basis never exists as a whole.

Cosine and sine are computed of the angle itself; those of its multiples follow by ``f(m + 1) = 2 cos(x) f(m) - f(m -
1)`` with a multiply-add each. The backward pass computes the basis again; autograd keeps only the input.

Shape letters: ``B`` images, ``H`` heads, ``T`` rows of a head, ``R`` rows of a block, ``F`` in features, ``G``
frequencies, ``K`` waves of each input (``2 G``), ``O`` out features.
"""

import torch
from torch import Tensor

from vik_mm.ops.backends import compute_dtype, plain_or_operator, without_autocast
from vik_mm.ops.narrow_linear import linear

# A block of this many float32 values is 3 MB: it stays in the caches of the cores that made it.
BLOCK_ELEMENTS = 800_000


def fourier_kan_chunked(x: Tensor, weight: Tensor) -> Tensor:
    """Evaluate the operator block by block; see :func:`vik_mm.ops.fourier_kan` for arguments and result."""
    return plain_or_operator(_forward, _operator)(x, weight)


class _Blocks:
    """What one pass over the blocks shares: the blocks, and buffers.

    Args:
        x (Tensor): ``[B, H, T, F]``.
        table (Tensor): ``[H, K, F, O]``.
    """

    def __init__(self, x: Tensor, table: Tensor):
        num_images, num_heads, num_rows, num_in = x.shape
        self.num_features = table.shape[1]
        self.num_waves = self.num_features // 2
        size = max(1, BLOCK_ELEMENTS // max(1, self.num_features * num_in))
        images = max(1, min(num_images, size // max(1, num_rows)))
        rows = min(num_rows, size)
        self.blocks = [
            (h, slice(b, b + images), slice(t, t + rows))
            for h in range(num_heads)
            for b in range(0, num_images, images)
            for t in range(0, num_rows, max(1, rows))
        ]
        self.dtype = compute_dtype(x)
        self._shape = (images * rows, self.num_features, num_in)
        self._features = self._buffer()

    def _buffer(self) -> Tensor:
        return torch.empty(self._shape, dtype=self.dtype)

    def rows(self, x: Tensor, block: tuple[int, slice, slice]) -> Tensor:
        """Cut a block out, ``[B, H, T, F] -> [R, F]``."""
        head, images, rows = block
        return x[images, head, rows].reshape(-1, x.shape[-1]).to(self.dtype)

    def features(self, rows: Tensor) -> Tensor:
        """Compute the waves, ``[R, F] -> [R, K, F]``; valid until the next call."""
        features = self._features[: rows.shape[0]]
        cos, sin = features[:, : self.num_waves], features[:, self.num_waves :]
        torch.cos(rows, out=cos[:, 0])
        torch.sin(rows, out=sin[:, 0])
        if self.num_waves > 1:
            twice = 2 * cos[:, 0]
            torch.mul(twice, cos[:, 0], out=cos[:, 1]).sub_(1)
            torch.mul(twice, sin[:, 0], out=sin[:, 1])
            for wave in (cos, sin):
                for m in range(2, self.num_waves):
                    torch.mul(twice, wave[:, m - 1], out=wave[:, m]).sub_(wave[:, m - 2])
        return features

    def start_gradients(self, table: Tensor) -> None:
        """Prepare buffers and sums of a backward pass."""
        self._grad_features = self._buffer()
        self.grad_table = torch.zeros(table.shape[0], table.shape[3], table.shape[1] * table.shape[2], dtype=self.dtype)
        self._frequencies = torch.arange(1, self.num_waves + 1, dtype=self.dtype)[:, None]

    def backward(self, rows: Tensor, grad: Tensor, head: int, flat_table: Tensor) -> Tensor:
        """Add a block's share to the table's gradient; ``[R, F], [R, O] -> [R, F]``."""
        features, grad_features = self.features(rows), self._grad_features[: rows.shape[0]]
        self.grad_table[head].addmm_(grad.t(), features.flatten(1))
        torch.mm(grad, flat_table, out=grad_features.flatten(1))
        n = self.num_waves
        # d cos(mx) / dx = -m sin(mx), d sin(mx) / dx = m cos(mx)
        slope = grad_features[:, n:].mul_(features[:, :n])
        slope.addcmul_(grad_features[:, :n], features[:, n:], value=-1)
        return slope.mul_(self._frequencies).sum(1)


def _forward(x: Tensor, table: Tensor) -> Tensor:
    blocks = _Blocks(x, table)
    out = x.new_empty(*x.shape[:3], table.shape[3])
    tables = table.flatten(1, 2).transpose(1, 2).to(blocks.dtype).contiguous()  # [H, O, K * F]
    with without_autocast(x):
        for block in blocks.blocks:
            head, images, rows = block
            target = out[images, head, rows]
            target.copy_(linear(blocks.features(blocks.rows(x, block)).flatten(1), tables[head]).view(target.shape))
    return out


_operator = torch.library.custom_op('vik_mm::fourier_kan_chunked', _forward, mutates_args=())


@_operator.register_fake
def _(x, table):
    return x.new_empty(*x.shape[:3], table.shape[3])


@torch.library.custom_op('vik_mm::fourier_kan_chunked_backward', mutates_args=())
def _backward(grad_out: Tensor, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    blocks = _Blocks(x, table)
    blocks.start_gradients(table)
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    tables = table.flatten(1, 2).transpose(1, 2).to(blocks.dtype).contiguous()
    for block in blocks.blocks:
        head, images, rows = block
        target = grad_x[images, head, rows]
        grad = blocks.rows(grad_out, block)
        target.copy_(blocks.backward(blocks.rows(x, block), grad, head, tables[head]).view(target.shape))
    grad_table = blocks.grad_table.view(-1, table.shape[3], *table.shape[1:3]).permute(0, 2, 3, 1)
    return grad_x, grad_table.to(table.dtype).contiguous()


@_backward.register_fake
def _(grad_out, x, table):
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(table)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


_operator.register_autograd(lambda ctx, grad: _backward(grad, *ctx.saved_tensors), setup_context=_setup_context)
