"""The RBF-KAN operator as Triton kernels: the basis lives in registers and is never written.

One program holds a tile of rows. For each Gaussian it computes the tile's basis, a multiply-add, a square and an
exponential to base two, and multiplies it with that Gaussian's slice of the weight on the matrix units, summing in
float32. Map and rows differ in their addresses alone: a row of a map is a patch, its pixels are read from and written
to the ``[B, C, H, W]`` map itself, and pixels outside of the map count as zero. The base branch, its bias and the
residual belong to the same pass over the map.

The backward pass computes the basis again, in two kernels: one for the input, with partial sums for centres, widths and
bias, one for the weight. Each program walks its tiles in a fixed order and writes its own partial sums, which one
reduction joins: the gradients are the same bits in every run.

Shape letters: ``R`` rows, ``F`` in features, ``G`` Gaussians per feature, ``K`` Gaussians and base branch together
(``G`` or ``G + 1``), ``O`` out features, ``P`` patch side, ``M`` images times channels.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from vik_mm.ops.dot_dtypes import DOT_DTYPES

from .chunked import fold

# Rows and columns of a tile; the matrix units take no side under 16.
BLOCK_ROWS = 64
MIN_COLUMNS = 16
# Programs that walk the rows in the backward pass: enough to fill any GPU, few enough partial sums.
NUM_WALKERS = 264
MINUS_TWO_LN_TWO = -2 * math.log(2)


def rbf_kan_triton(x: Tensor, centers: Tensor, widths: Tensor, weight: Tensor) -> Tensor:
    """Evaluate the operator on a GPU; see :func:`vik_mm.ops.rbf_kan` for arguments and result."""
    rows = x.reshape(-1, x.shape[-1])
    scale, shift, table = _fold(centers, widths, weight)
    return _forward(rows, scale, shift, table, None, 0).unflatten(0, x.shape[:-1])


def patch_rbf_kan_triton(
    x: Tensor,
    centers: Tensor,
    widths: Tensor,
    weight: Tensor,
    base_weight: Tensor,
    base_bias: Tensor,
    patch_size: int,
) -> Tensor:
    """Evaluate the patch step on a GPU; see :func:`vik_mm.ops.patch_rbf_kan` for arguments and result."""
    scale, shift, table = _fold(centers, widths, weight, base_weight)
    return _forward(x, scale, shift, table, base_bias.float(), patch_size)


def _fold(*parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fold as the chunked backend does; the table as ``[K * F, O]``, the out features lying together."""
    scale, shift, table = (t.float() for t in fold(*parameters))
    return scale, shift, table.permute(1, 2, 0).flatten(0, 1).contiguous()


@triton.jit
def _addresses(
    rows, num_rows, height, width, down, across, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, SIDE: tl.constexpr
):
    """Offsets and mask of a tile ``[rows, BLOCK]``; rows of a matrix where ``SIDE`` is 0, patches of a map else."""
    column = tl.arange(0, BLOCK)
    mask = (rows < num_rows)[:, None] & (column < COLUMNS)[None, :]
    if SIDE == 0:
        return rows.to(tl.int64)[:, None] * COLUMNS + column[None, :], mask
    j = rows % across
    i = (rows // across) % down
    m = (rows // (across * down)).to(tl.int64)
    h = i[:, None] * SIDE + (column // SIDE)[None, :]
    w = j[:, None] * SIDE + (column % SIDE)[None, :]
    return (m[:, None] * height + h) * width + w, mask & (h < height) & (w < width)


@triton.jit
def _weight_slice(table, k, IN: tl.constexpr, OUT: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr):
    """Slice ``[BLOCK_F, BLOCK_O]`` of the weight that belongs to Gaussian ``k``, zero outside."""
    f, o = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_O)
    mask = (f < IN)[:, None] & (o < OUT)[None, :]
    return tl.load(table + (k * IN + f)[:, None] * OUT + o[None, :], mask=mask, other=0.0)


@triton.jit
def _argument(x, scale, shift, g, IN: tl.constexpr, BLOCK_F: tl.constexpr):
    """Distance of each value from centre ``g`` in units of its width."""
    f = tl.arange(0, BLOCK_F)
    a = tl.load(scale + g * IN + f, mask=f < IN, other=0.0)
    b = tl.load(shift + g * IN + f, mask=f < IN, other=0.0)
    return x * a[None, :] - b[None, :], a


@triton.jit
def _forward_kernel(
    x_ptr, out_ptr, scale, shift, table, bias,
    num_rows, height, width, down, across,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, SIDE: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    offsets, mask = _addresses(rows, num_rows, height, width, down, across, IN, BLOCK_F, SIDE)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    out = tl.zeros((BLOCK_R, BLOCK_O), tl.float32)
    for g in range(G):
        t, _ = _argument(x, scale, shift, g, IN, BLOCK_F)
        w = _weight_slice(table, g, IN, OUT, BLOCK_F, BLOCK_O)
        out = tl.dot(tl.exp2(-t * t).to(DOT), w.to(DOT), out, input_precision=PRECISION)
    if BASE:
        o = tl.arange(0, BLOCK_O)
        w = _weight_slice(table, G, IN, OUT, BLOCK_F, BLOCK_O)
        out = tl.dot((x * tl.sigmoid(x)).to(DOT), w.to(DOT), out, input_precision=PRECISION)
        out += tl.load(bias + o, mask=o < OUT, other=0.0)[None, :]
        out += x  # in and out features are the patch's pixels
        tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)
    else:
        offsets, mask = _addresses(rows, num_rows, height, width, down, across, OUT, BLOCK_O, SIDE)
        tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward_input_kernel(
    grad_ptr, x_ptr, grad_x_ptr, scale, shift, table, part_scale, part_shift, part_bias,
    num_rows, num_tiles, height, width, down, across,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, SIDE: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_G: tl.constexpr,
    CONSTANT: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    walker = tl.program_id(0)
    grids = tl.arange(0, BLOCK_G)
    sum_scale = tl.zeros((BLOCK_G, BLOCK_F), tl.float32)
    sum_shift = tl.zeros((BLOCK_G, BLOCK_F), tl.float32)
    sum_bias = tl.zeros((BLOCK_O,), tl.float32)
    for tile in range(walker, num_tiles, tl.num_programs(0)):
        rows = tile * BLOCK_R + tl.arange(0, BLOCK_R)
        offsets, mask = _addresses(rows, num_rows, height, width, down, across, IN, BLOCK_F, SIDE)
        offsets_o, mask_o = _addresses(rows, num_rows, height, width, down, across, OUT, BLOCK_O, SIDE)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + offsets_o, mask=mask_o, other=0.0)
        grad_x = tl.zeros((BLOCK_R, BLOCK_F), tl.float32)
        for g in range(G):
            t, a = _argument(x, scale, shift, g, IN, BLOCK_F)
            w = tl.trans(_weight_slice(table, g, IN, OUT, BLOCK_F, BLOCK_O))
            grad_basis = tl.dot(grad.to(DOT), w.to(DOT), input_precision=PRECISION)
            # d 2 ** -t^2 / dt = -2 ln(2) t 2 ** -t^2
            grad_t = CONSTANT * grad_basis * t * tl.exp2(-t * t)
            grad_x += grad_t * a[None, :]
            mine = (grids == g)[:, None]
            sum_scale += tl.where(mine, tl.sum(grad_t * x, 0)[None, :], 0.0)
            sum_shift -= tl.where(mine, tl.sum(grad_t, 0)[None, :], 0.0)
        if BASE:
            w = tl.trans(_weight_slice(table, G, IN, OUT, BLOCK_F, BLOCK_O))
            grad_silu = tl.dot(grad.to(DOT), w.to(DOT), input_precision=PRECISION)
            sigmoid = tl.sigmoid(x)
            grad_x += grad_silu * sigmoid * (1 + x * (1 - sigmoid))
            grad_x += grad.to(tl.float32)
            sum_bias += tl.sum(grad.to(tl.float32), 0)
        tl.store(grad_x_ptr + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), mask=mask)
    f, o = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_O)
    mine = walker * G * IN + grids[:, None] * IN + f[None, :]
    mask = (grids < G)[:, None] & (f < IN)[None, :]
    tl.store(part_scale + mine, sum_scale, mask=mask)
    tl.store(part_shift + mine, sum_shift, mask=mask)
    if BASE:
        tl.store(part_bias + walker * OUT + o, sum_bias, mask=o < OUT)


@triton.jit
def _backward_weight_kernel(
    grad_ptr, x_ptr, scale, shift, part_table,
    num_rows, num_tiles, height, width, down, across,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, K: tl.constexpr, SIDE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    k = tl.program_id(0)  # neighbours read the same rows, from the cache
    walker = tl.program_id(1)
    total = tl.zeros((BLOCK_F, BLOCK_O), tl.float32)
    for tile in range(walker, num_tiles, tl.num_programs(1)):
        rows = tile * BLOCK_R + tl.arange(0, BLOCK_R)
        offsets, mask = _addresses(rows, num_rows, height, width, down, across, IN, BLOCK_F, SIDE)
        offsets_o, mask_o = _addresses(rows, num_rows, height, width, down, across, OUT, BLOCK_O, SIDE)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + offsets_o, mask=mask_o, other=0.0)
        if k == G:
            features = x * tl.sigmoid(x)
        else:
            t, _ = _argument(x, scale, shift, k, IN, BLOCK_F)
            features = tl.exp2(-t * t)
        total = tl.dot(tl.trans(features).to(DOT), grad.to(DOT), total, input_precision=PRECISION)
    f, o = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_O)
    mask = (f < IN)[:, None] & (o < OUT)[None, :]
    mine = ((walker * K + k) * IN + f)[:, None] * OUT + o[None, :]
    tl.store(part_table + mine, total, mask=mask)


def _settings(x: Tensor, scale: Tensor, table: Tensor, patch_size: int) -> tuple[int, tuple, dict]:
    """Work out the rows, the sizes and the compile-time arguments that all kernels share."""
    num_grids, num_in = scale.shape
    num_out = table.shape[1]
    if patch_size:
        height, width = x.shape[2:]
        down, across = -(-height // patch_size), -(-width // patch_size)
        num_rows = x.shape[0] * x.shape[1] * down * across
    else:
        num_rows, height, width, down, across = x.shape[0], 1, 1, 1, 1
    constants = dict(
        IN=num_in,
        OUT=num_out,
        G=num_grids,
        SIDE=patch_size,
        BLOCK_R=BLOCK_ROWS,
        BLOCK_F=max(MIN_COLUMNS, triton.next_power_of_2(num_in)),
        BLOCK_O=max(MIN_COLUMNS, triton.next_power_of_2(num_out)),
        DOT=DOT_DTYPES[x.dtype],
        PRECISION='tf32' if torch.backends.cuda.matmul.allow_tf32 else 'ieee',
    )
    return num_rows, (height, width, down, across), constants


@torch.library.custom_op('vik_mm::rbf_kan_triton', mutates_args=())
def _forward(x: Tensor, scale: Tensor, shift: Tensor, table: Tensor, bias: Tensor | None, patch_size: int) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x) if patch_size else x.new_empty(x.shape[0], table.shape[1])
    num_rows, sizes, constants = _settings(x, scale, table, patch_size)
    if num_rows:
        grid = (triton.cdiv(num_rows, BLOCK_ROWS),)
        _forward_kernel[grid](x, out, scale, shift, table, bias, num_rows, *sizes, BASE=bias is not None, **constants)
    return out


@_forward.register_fake
def _(x, scale, shift, table, bias, patch_size):
    if patch_size:
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    return x.new_empty(x.shape[0], table.shape[1])


@torch.library.custom_op('vik_mm::rbf_kan_triton_backward', mutates_args=())
def _backward(
    grad_out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, table: Tensor, has_base: bool, patch_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, grad_out = x.contiguous(), grad_out.contiguous()
    grad_x = torch.empty_like(x)
    num_rows, sizes, constants = _settings(x, scale, table, patch_size)
    (num_grids, num_in), num_out = scale.shape, table.shape[1]
    if not num_rows:
        zeros = (torch.zeros_like(t) for t in (scale, shift, table))
        return grad_x, *zeros, scale.new_zeros(num_out)
    num_tiles = triton.cdiv(num_rows, BLOCK_ROWS)
    walkers = min(num_tiles, NUM_WALKERS)
    num_slices = num_grids + has_base
    part_scale, part_shift = (scale.new_empty(walkers, num_grids, num_in) for _ in range(2))
    part_bias = scale.new_empty(walkers, num_out)
    _backward_input_kernel[(walkers,)](
        grad_out, x, grad_x, scale, shift, table, part_scale, part_shift, part_bias, num_rows, num_tiles, *sizes,
        BASE=has_base, BLOCK_G=triton.next_power_of_2(num_grids), CONSTANT=MINUS_TWO_LN_TWO, **constants,
    )  # fmt: skip
    # Every walker of this kernel holds a slice of the weight: fewer of them keep the partial sums few.
    walkers = min(num_tiles, max(1, 4 * NUM_WALKERS // num_slices))
    part_table = scale.new_empty(walkers, num_slices * num_in, num_out)
    _backward_weight_kernel[(num_slices, walkers)](
        grad_out, x, scale, shift, part_table, num_rows, num_tiles, *sizes, K=num_slices, **constants
    )
    grad_bias = part_bias.sum(0) if has_base else scale.new_zeros(num_out)
    return grad_x, part_scale.sum(0), part_shift.sum(0), part_table.sum(0), grad_bias


@_backward.register_fake
def _(grad_out, x, scale, shift, table, has_base, patch_size):
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return grad_x, *(torch.empty_like(t) for t in (scale, shift, table)), scale.new_empty(table.shape[1])


def _setup_context(ctx, inputs, output):
    *tensors, bias, ctx.patch_size = inputs
    ctx.has_base = bias is not None
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad_out):
    *grads, grad_bias = _backward(grad_out, *ctx.saved_tensors, ctx.has_base, ctx.patch_size)
    return *grads, grad_bias if ctx.has_base else None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
