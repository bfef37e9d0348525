"""The Fourier KAN operator as Triton kernels: the basis lives in registers and is never written.

A program holds a tile of rows of one head and walks over the in features. Cosine and sine of a tile are computed once;
those of the angle's multiples follow by ``f(m + 1) = 2 cos(x) f(m) - f(m - 1)``, and each is multiplied with its
slice of the weight on the matrix units, summing in float32. The backward pass computes them again, in one kernel for
the input and one for the weight, which takes a few waves at once. Its programs walk their tiles in a fixed order and
write partial sums that one reduction joins: the gradients are the same bits in every run.

Shape letters: ``B`` images, ``H`` heads, ``T`` rows of a head, ``F`` in features, ``G`` frequencies, ``K`` features of
each input (``2 G``), ``O`` out features.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from vik_mm.ops.launch import (
    Chip,
    Launch,
    chip_of,
    dot_constants,
    dot_dtype,
    quotient,
    reciprocal,
    uses_matrix_units,
)

BLOCK_ROWS = 64
BLOCK_IN = 32
NUM_WARPS = 4
MIN_COLUMNS = 16  # the matrix units take no side under 16
MAX_OUT_FEATURES = 128
BLOCK_WAVES = 4  # frequencies of a program for the weight's gradient
# Programs that walk the rows for the weight's gradient, for each processor: enough to hide the loads' latency.
WALKERS_PER_PROCESSOR = 8


def fourier_kan_triton(x: Tensor, weight: Tensor) -> Tensor:
    """Evaluate the operator on a GPU; see :func:`vik_mm.ops.fourier_kan` for arguments and result."""
    return _forward(x, weight.float().contiguous())


# Sizes change with every image size; a kernel for each kind of number would be compiled again.
_jit = triton.jit(
    do_not_specialize=['num_rows', 'num_tiles', 'rows_of_head', 'rows_by', 'rows_shift', 'heads', 'walkers']
)


@triton.jit
def _cos_sin(x):
    """Cosine and sine in two dozen instructions and without a stack, for angles of any useful size.

    The library's functions have a path for huge angles that takes a loop and memory. The angle's remainder from the
    nearest multiple of pi / 2 goes through two short polynomials; their error is that of the last bit up to angles of
    some thousands, and grows slowly from there.
    """
    shifted = x * 0.6366197723675814 + 12582912.0  # 1.5 * 2 ** 23: the last bits of the sum are the nearest integer
    nearest = shifted - 12582912.0
    r = x - nearest * 1.5703125  # pi / 2 in three parts, of few bits, so that the products are exact
    r -= nearest * 4.837512969970703125e-4
    r -= nearest * 7.54978995489188e-8
    square = r * r
    sin = ((-1.9515295891e-4 * square + 8.3321608736e-3) * square - 1.6666654611e-1) * square * r + r
    cos = ((2.443315711809948e-5 * square - 1.388731625493765e-3) * square + 4.166664568298827e-2) * square * square
    cos += 1.0 - 0.5 * square
    quadrant = shifted.to(tl.int32, bitcast=True)
    is_odd = (quadrant & 1) == 1
    first, second = tl.where(is_odd, sin, cos), tl.where(is_odd, cos, sin)
    return tl.where(((quadrant + 1) & 2) == 2, -first, first), tl.where((quadrant & 2) == 2, -second, second)


@triton.jit
def _tile(ptr, head, rows, columns, num_rows, rows_of_head, rows_by, rows_shift, heads, NUM: tl.constexpr):
    """Offsets and mask of a tile of ``[B, H, T, NUM]``; ``rows`` count the rows of one head through all images."""
    image = quotient(rows, rows_by, rows_shift)
    start = (rows + (image * (heads - 1) + head) * rows_of_head).to(tl.int64) * NUM
    return ptr + start[:, None] + columns[None, :], (rows < num_rows)[:, None] & (columns < NUM)[None, :]


@triton.jit
def _slice(table, head, k, columns, K: tl.constexpr, IN: tl.constexpr, BLOCK_O: tl.constexpr):
    """Slice ``[columns, BLOCK_O]`` of the packed weight that belongs to feature ``k`` of a head, zero outside."""
    o = tl.arange(0, BLOCK_O)
    start = (head * K + k) * IN
    return tl.load(table + (start + columns)[:, None] * BLOCK_O + o[None, :], mask=(columns < IN)[:, None], other=0.0)


@_jit
def _forward_kernel(
    x_ptr, out_ptr, table, num_rows, rows_of_head, rows_by, rows_shift, heads,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, K: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    o = tl.arange(0, BLOCK_O)
    out = tl.zeros((BLOCK_R, BLOCK_O), tl.float32)
    for first in range(0, IN, BLOCK_F):
        columns = first + tl.arange(0, BLOCK_F)
        address, mask = _tile(x_ptr, head, rows, columns, num_rows, rows_of_head, rows_by, rows_shift, heads, IN)
        x = tl.load(address, mask=mask, other=0.0).to(tl.float32)
        cos, sin = _cos_sin(x)
        twice, cos_before, sin_before = 2 * cos, tl.full(x.shape, 1.0, tl.float32), tl.zeros_like(x)
        for m in range(G):
            w = _slice(table, head, m, columns, K, IN, BLOCK_O)
            out = tl.dot(cos.to(DOT), w, out, input_precision=PRECISION)
            w = _slice(table, head, G + m, columns, K, IN, BLOCK_O)
            out = tl.dot(sin.to(DOT), w, out, input_precision=PRECISION)
            cos, cos_before = twice * cos - cos_before, cos
            sin, sin_before = twice * sin - sin_before, sin
    address, mask = _tile(out_ptr, head, rows, o, num_rows, rows_of_head, rows_by, rows_shift, heads, OUT)
    tl.store(address, out.to(out_ptr.dtype.element_ty), mask=mask)


@_jit
def _backward_input_kernel(
    grad_ptr, x_ptr, grad_x_ptr, table, num_rows, rows_of_head, rows_by, rows_shift, heads,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, K: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    columns = tl.program_id(2) * BLOCK_F + tl.arange(0, BLOCK_F)
    o = tl.arange(0, BLOCK_O)
    address, mask = _tile(grad_ptr, head, rows, o, num_rows, rows_of_head, rows_by, rows_shift, heads, OUT)
    grad = tl.load(address, mask=mask, other=0.0).to(DOT)
    address, mask = _tile(x_ptr, head, rows, columns, num_rows, rows_of_head, rows_by, rows_shift, heads, IN)
    x = tl.load(address, mask=mask, other=0.0).to(tl.float32)
    cos, sin = _cos_sin(x)
    twice, cos_before, sin_before = 2 * cos, tl.full(x.shape, 1.0, tl.float32), tl.zeros_like(x)
    grad_x = tl.zeros_like(x)
    for m in range(G):
        w = tl.trans(_slice(table, head, m, columns, K, IN, BLOCK_O))
        grad_x -= (m + 1) * sin * tl.dot(grad, w, input_precision=PRECISION)
        w = tl.trans(_slice(table, head, G + m, columns, K, IN, BLOCK_O))
        grad_x += (m + 1) * cos * tl.dot(grad, w, input_precision=PRECISION)
        cos, cos_before = twice * cos - cos_before, cos
        sin, sin_before = twice * sin - sin_before, sin
    address, mask = _tile(grad_x_ptr, head, rows, columns, num_rows, rows_of_head, rows_by, rows_shift, heads, IN)
    tl.store(address, grad_x.to(grad_x_ptr.dtype.element_ty), mask=mask)


@_jit
def _backward_weight_kernel(
    grad_ptr, x_ptr, part_table, num_tiles, walkers, num_rows, rows_of_head, rows_by, rows_shift, heads,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, K: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_G: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head, walker = tl.program_id(0) % heads, tl.program_id(0) // heads
    columns = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    first = tl.program_id(2) * BLOCK_G
    o = tl.arange(0, BLOCK_O)
    frequencies = (1 + first + tl.arange(0, BLOCK_G)).to(tl.float32)
    # The waves of a group lie one below the other, so that one product serves all.
    total_cos = tl.zeros((BLOCK_G * BLOCK_F, BLOCK_O), tl.float32)
    total_sin = tl.zeros((BLOCK_G * BLOCK_F, BLOCK_O), tl.float32)
    for tile in range(walker, num_tiles, walkers):
        rows = tile * BLOCK_R + tl.arange(0, BLOCK_R)
        address, mask = _tile(grad_ptr, head, rows, o, num_rows, rows_of_head, rows_by, rows_shift, heads, OUT)
        grad = tl.load(address, mask=mask, other=0.0).to(DOT)
        address, mask = _tile(x_ptr, head, rows, columns, num_rows, rows_of_head, rows_by, rows_shift, heads, IN)
        x = tl.load(address, mask=mask, other=0.0).to(tl.float32)
        cos, sin = _cos_sin(x[:, None, :] * frequencies[None, :, None])
        cos = tl.trans(tl.reshape(cos.to(DOT), (BLOCK_R, BLOCK_G * BLOCK_F)))
        sin = tl.trans(tl.reshape(sin.to(DOT), (BLOCK_R, BLOCK_G * BLOCK_F)))
        total_cos = tl.dot(cos, grad, total_cos, input_precision=PRECISION)
        total_sin = tl.dot(sin, grad, total_sin, input_precision=PRECISION)
    part_table += (walker * heads + head).to(tl.int64) * (K * IN * OUT)
    k = tl.arange(0, BLOCK_G * BLOCK_F)
    wave, column = first + k // BLOCK_F, tl.program_id(1) * BLOCK_F + k % BLOCK_F
    mask = ((wave < G) & (column < IN))[:, None] & (o < OUT)[None, :]
    address = part_table + (wave * IN + column)[:, None] * OUT + o[None, :]
    tl.store(address, total_cos, mask=mask)
    tl.store(address + G * IN * OUT, total_sin, mask=mask)


class _Problem:
    """Sizes of a call, and the launches that it takes.

    Args:
        chip (Chip): Where the kernels run.
        x (Tensor): ``[B, H, T, F]``, contiguous.
        table (Tensor): ``[H, K, F, O]``.
    """

    def __init__(self, chip: Chip, x: Tensor, table: Tensor):
        self.chip, self.x, self.table = chip, x, table
        num_images, self.heads, rows_of_head, self.num_in = x.shape
        num_features, num_out = table.shape[1], table.shape[3]
        self.num_rows = num_images * rows_of_head
        rows_by, rows_shift = reciprocal(max(1, rows_of_head))
        self.sizes = dict(
            num_rows=self.num_rows, rows_of_head=rows_of_head, rows_by=rows_by, rows_shift=rows_shift, heads=self.heads
        )
        self.num_waves = num_features // 2
        block_o = max(MIN_COLUMNS, triton.next_power_of_2(num_out))
        self.constants = dict(
            IN=self.num_in, OUT=num_out, G=self.num_waves, K=num_features,
            BLOCK_R=BLOCK_ROWS, BLOCK_F=BLOCK_IN, BLOCK_O=block_o, **dot_constants(x),
        )  # fmt: skip
        self.tiles, self.columns = triton.cdiv(self.num_rows, BLOCK_ROWS), triton.cdiv(self.num_in, BLOCK_IN)

    def _packed(self) -> Tensor:
        """The table in the dtype of the products, its last dimension padded, so that loads are wide."""
        padding = self.constants['BLOCK_O'] - self.table.shape[3]
        return torch.nn.functional.pad(self.table.to(dot_dtype(self.x)), (0, padding))

    def forward(self, out: Tensor) -> Launch:
        """Prepare the forward pass."""
        arguments = dict(x_ptr=self.x, out_ptr=out, table=self._packed(), **self.sizes)
        return Launch(_forward_kernel, (self.tiles, self.heads), arguments, self.constants, NUM_WARPS, 1)

    def backward_input(self, grad: Tensor, grad_x: Tensor) -> Launch:
        """Prepare the gradient of the input."""
        arguments = dict(grad_ptr=grad, x_ptr=self.x, grad_x_ptr=grad_x, table=self._packed(), **self.sizes)
        grid = (self.tiles, self.heads, self.columns)
        return Launch(_backward_input_kernel, grid, arguments, self.constants, NUM_WARPS, 1)

    def backward_weight(self, grad: Tensor) -> tuple[Launch, Tensor]:
        """Prepare the gradient of the table; also gives its partial sums."""
        # Without matrix units the operands of products take registers: no more of them fit.
        fits = uses_matrix_units(self.chip, self.constants)
        rows, waves = (BLOCK_ROWS, BLOCK_WAVES) if fits else (BLOCK_ROWS // 2, 1)
        tiles = triton.cdiv(self.num_rows, rows)
        groups = triton.cdiv(self.num_waves, waves)
        programs = WALKERS_PER_PROCESSOR * self.chip.processors
        walkers = min(tiles, max(1, programs // (self.heads * self.columns * groups)))
        part_table = self.table.new_empty(walkers, *self.table.shape)
        arguments = dict(
            grad_ptr=grad, x_ptr=self.x, part_table=part_table, num_tiles=tiles, walkers=walkers, **self.sizes
        )
        constants = dict(self.constants, BLOCK_R=rows, BLOCK_G=waves)
        grid = (walkers * self.heads, self.columns, groups)
        return Launch(_backward_weight_kernel, grid, arguments, constants, NUM_WARPS, 1), part_table


@torch.library.custom_op('vik_mm::fourier_kan_triton', mutates_args=())
def _forward(x: Tensor, table: Tensor) -> Tensor:
    x = x.contiguous()
    out = x.new_empty(*x.shape[:3], table.shape[3])
    if out.numel():
        _Problem(chip_of(x), x, table).forward(out).run()
    return out


@_forward.register_fake
def _(x, table):
    return x.new_empty(*x.shape[:3], table.shape[3])


@torch.library.custom_op('vik_mm::fourier_kan_triton_backward', mutates_args=())
def _backward(grad_out: Tensor, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    x, grad_out = x.contiguous(), grad_out.contiguous()
    grad_x = torch.empty_like(x)
    if not grad_out.numel():
        return grad_x, torch.zeros_like(table)
    problem = _Problem(chip_of(x), x, table)
    problem.backward_input(grad_out, grad_x).run()
    launch, part_table = problem.backward_weight(grad_out)
    launch.run()
    return grad_x, part_table.sum(0)


@_backward.register_fake
def _(grad_out, x, table):
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(table)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


_forward.register_autograd(lambda ctx, grad: _backward(grad, *ctx.saved_tensors), setup_context=_setup_context)
