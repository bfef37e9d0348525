"""The Fourier KAN operator as Triton kernels: the basis lives in registers and is never written.

A program holds a tile of rows of one head and walks over the in features. Cosine and sine of a tile are computed once;
those of the angle's multiples follow by ``f(m + 1) = 2 cos(x) f(m) - f(m - 1)``, and each is multiplied with its
slice of the weight on the matrix units, summing in float32. The backward pass computes them again, in one kernel for
the input and one for the weight, whose programs walk their tiles in a fixed order and write partial sums that one
reduction joins: the gradients are the same bits in every run.

Shape letters: ``B`` images, ``H`` heads, ``T`` rows of a head, ``F`` in features, ``G`` frequencies, ``K`` features of
each input (``2 G``, and one more for the base branch), ``O`` out features.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from vik_mm.ops.dot_dtypes import DOT_DTYPES

BLOCK_ROWS = 64
BLOCK_IN = 32
MIN_COLUMNS = 16  # the matrix units take no side under 16
MAX_OUT_FEATURES = 128
# Programs of a head that walk its rows for the weight's gradient: enough for any GPU, few enough partial sums.
NUM_WALKERS = 32
NO_BASE, SILU, IDENTITY = range(3)
BASES = {'': NO_BASE, 'silu': SILU, 'identity': IDENTITY}


def fourier_kan_triton(x: Tensor, weight: Tensor, base_weight: Tensor | None, base_activation: str) -> Tensor:
    """Evaluate the operator on a GPU; see :func:`vik_mm.ops.fourier_kan` for arguments and result."""
    table = weight if base_weight is None else torch.cat([weight, base_weight.unsqueeze(1)], dim=1)
    base = BASES[base_activation] if base_weight is not None else NO_BASE
    return _forward(x, table.float().contiguous(), base)


@triton.jit
def _tile(ptr, head, rows, columns, num_rows, rows_of_head, heads, NUM: tl.constexpr):
    """Offsets and mask of a tile of ``[B, H, T, NUM]``; ``rows`` count the rows of one head through all images."""
    image, row = rows // rows_of_head, rows % rows_of_head
    start = ((image * heads + head).to(tl.int64) * rows_of_head + row) * NUM
    return ptr + start[:, None] + columns[None, :], (rows < num_rows)[:, None] & (columns < NUM)[None, :]


@triton.jit
def _slice(table, head, k, columns, o, K: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr):
    """Slice ``[columns, O]`` of the weight that belongs to feature ``k`` of a head, zero outside."""
    mask = (columns < IN)[:, None] & (o < OUT)[None, :]
    start = (head * K + k) * IN
    return tl.load(table + (start + columns)[:, None] * OUT + o[None, :], mask=mask, other=0.0)


@triton.jit
def _forward_kernel(
    x_ptr, out_ptr, table, num_rows, rows_of_head, heads,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, K: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    o = tl.arange(0, BLOCK_O)
    out = tl.zeros((BLOCK_R, BLOCK_O), tl.float32)
    for first in range(0, IN, BLOCK_F):
        columns = first + tl.arange(0, BLOCK_F)
        address, mask = _tile(x_ptr, head, rows, columns, num_rows, rows_of_head, heads, IN)
        x = tl.load(address, mask=mask, other=0.0).to(tl.float32)
        cos, sin = tl.cos(x), tl.sin(x)
        twice, cos_before, sin_before = 2 * cos, tl.full(x.shape, 1.0, tl.float32), tl.zeros_like(x)
        for m in range(G):
            w = _slice(table, head, m, columns, o, K, IN, OUT)
            out = tl.dot(cos.to(DOT), w.to(DOT), out, input_precision=PRECISION)
            w = _slice(table, head, G + m, columns, o, K, IN, OUT)
            out = tl.dot(sin.to(DOT), w.to(DOT), out, input_precision=PRECISION)
            cos, cos_before = twice * cos - cos_before, cos
            sin, sin_before = twice * sin - sin_before, sin
        if BASE != 0:
            w = _slice(table, head, K - 1, columns, o, K, IN, OUT)
            base = x * tl.sigmoid(x) if BASE == 1 else x
            out = tl.dot(base.to(DOT), w.to(DOT), out, input_precision=PRECISION)
    address, mask = _tile(out_ptr, head, rows, o, num_rows, rows_of_head, heads, OUT)
    tl.store(address, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward_input_kernel(
    grad_ptr, x_ptr, grad_x_ptr, table, num_rows, rows_of_head, heads,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, K: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    columns = tl.program_id(2) * BLOCK_F + tl.arange(0, BLOCK_F)
    o = tl.arange(0, BLOCK_O)
    address, mask = _tile(grad_ptr, head, rows, o, num_rows, rows_of_head, heads, OUT)
    grad = tl.load(address, mask=mask, other=0.0).to(DOT)
    address, mask = _tile(x_ptr, head, rows, columns, num_rows, rows_of_head, heads, IN)
    x = tl.load(address, mask=mask, other=0.0).to(tl.float32)
    cos, sin = tl.cos(x), tl.sin(x)
    twice, cos_before, sin_before = 2 * cos, tl.full(x.shape, 1.0, tl.float32), tl.zeros_like(x)
    grad_x = tl.zeros_like(x)
    for m in range(G):
        w = tl.trans(_slice(table, head, m, columns, o, K, IN, OUT)).to(DOT)
        grad_x -= (m + 1) * sin * tl.dot(grad, w, input_precision=PRECISION)
        w = tl.trans(_slice(table, head, G + m, columns, o, K, IN, OUT)).to(DOT)
        grad_x += (m + 1) * cos * tl.dot(grad, w, input_precision=PRECISION)
        cos, cos_before = twice * cos - cos_before, cos
        sin, sin_before = twice * sin - sin_before, sin
    if BASE != 0:
        w = tl.trans(_slice(table, head, K - 1, columns, o, K, IN, OUT)).to(DOT)
        grad_base = tl.dot(grad, w, input_precision=PRECISION)
        sigmoid = tl.sigmoid(x)
        grad_x += grad_base * (sigmoid * (1 + x * (1 - sigmoid))) if BASE == 1 else grad_base
    address, mask = _tile(grad_x_ptr, head, rows, columns, num_rows, rows_of_head, heads, IN)
    tl.store(address, grad_x.to(grad_x_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward_weight_kernel(
    grad_ptr, x_ptr, part_table, num_rows, num_tiles, rows_of_head, heads, walkers,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, K: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    k, head = tl.program_id(0) % K, tl.program_id(0) // K
    walker = tl.program_id(1)
    columns = tl.program_id(2) * BLOCK_F + tl.arange(0, BLOCK_F)
    o = tl.arange(0, BLOCK_O)
    total = tl.zeros((BLOCK_F, BLOCK_O), tl.float32)
    for tile in range(walker, num_tiles, walkers):
        rows = tile * BLOCK_R + tl.arange(0, BLOCK_R)
        address, mask = _tile(grad_ptr, head, rows, o, num_rows, rows_of_head, heads, OUT)
        grad = tl.load(address, mask=mask, other=0.0).to(DOT)
        address, mask = _tile(x_ptr, head, rows, columns, num_rows, rows_of_head, heads, IN)
        x = tl.load(address, mask=mask, other=0.0).to(tl.float32)
        if k < G:
            feature = tl.cos((k + 1) * x)
        elif k < 2 * G:
            feature = tl.sin((k - G + 1) * x)
        elif BASE == 1:
            feature = x * tl.sigmoid(x)
        else:
            feature = x
        total = tl.dot(tl.trans(feature).to(DOT), grad, total, input_precision=PRECISION)
    mine = ((walker * heads + head) * K + k) * IN + columns
    mask = (columns < IN)[:, None] & (o < OUT)[None, :]
    tl.store(part_table + mine[:, None] * OUT + o[None, :], total, mask=mask)


def _settings(x: Tensor, table: Tensor, base: int) -> tuple[tuple[int, int, int], dict]:
    """Work out the sizes and the compile-time arguments that all kernels share."""
    num_images, num_heads, rows_of_head, num_in = x.shape
    num_features, num_out = table.shape[1], table.shape[3]
    constants = dict(
        IN=num_in,
        OUT=num_out,
        G=(num_features - (base != NO_BASE)) // 2,
        K=num_features,
        BASE=base,
        BLOCK_R=BLOCK_ROWS,
        BLOCK_F=BLOCK_IN,
        BLOCK_O=max(MIN_COLUMNS, triton.next_power_of_2(num_out)),
        DOT=DOT_DTYPES[x.dtype],
        PRECISION='tf32' if torch.backends.cuda.matmul.allow_tf32 else 'ieee',
    )
    return (num_images * rows_of_head, rows_of_head, num_heads), constants


@torch.library.custom_op('vik_mm::fourier_kan_triton', mutates_args=())
def _forward(x: Tensor, table: Tensor, base: int) -> Tensor:
    x = x.contiguous()
    out = x.new_empty(*x.shape[:3], table.shape[3])
    sizes, constants = _settings(x, table, base)
    if out.numel():
        _forward_kernel[(triton.cdiv(sizes[0], BLOCK_ROWS), x.shape[1])](x, out, table, *sizes, **constants)
    return out


@_forward.register_fake
def _(x, table, base):
    return x.new_empty(*x.shape[:3], table.shape[3])


@torch.library.custom_op('vik_mm::fourier_kan_triton_backward', mutates_args=())
def _backward(grad_out: Tensor, x: Tensor, table: Tensor, base: int) -> tuple[Tensor, Tensor]:
    x, grad_out = x.contiguous(), grad_out.contiguous()
    grad_x = torch.empty_like(x)
    sizes, constants = _settings(x, table, base)
    if not grad_out.numel():
        return grad_x, torch.zeros_like(table)
    num_rows, rows_of_head, heads = sizes
    num_tiles, columns = triton.cdiv(num_rows, BLOCK_ROWS), triton.cdiv(x.shape[3], BLOCK_IN)
    _backward_input_kernel[(num_tiles, heads, columns)](grad_out, x, grad_x, table, *sizes, **constants)
    walkers = min(num_tiles, NUM_WALKERS)
    part_table = table.new_empty(walkers, *table.shape)
    _backward_weight_kernel[(heads * table.shape[1], walkers, columns)](
        grad_out, x, part_table, num_rows, num_tiles, rows_of_head, heads, walkers, **constants
    )
    return grad_x, part_table.sum(0)


@_backward.register_fake
def _(grad_out, x, table, base):
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(table)


def _setup_context(ctx, inputs, output):
    x, table, ctx.base = inputs
    ctx.save_for_backward(x, table)


_forward.register_autograd(
    lambda ctx, grad: (*_backward(grad, *ctx.saved_tensors, ctx.base), None), setup_context=_setup_context
)
