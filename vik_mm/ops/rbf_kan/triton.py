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
from typing import NamedTuple

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
    sigmoid,
    uses_matrix_units,
)

from .chunked import fold

MIN_COLUMNS = 16  # the matrix units take no side under 16
MINUS_TWO_LN_TWO = -2 * math.log(2)
LARGEST_INT32 = 2**31 - 1


class Settings(NamedTuple):
    """How a kernel is launched."""

    rows: int  # of a tile
    share: int  # programs a processor in the backward pass of the input, Gaussians a program in that of the weight
    num_warps: int
    num_stages: int


def choose_settings(kernel: str, chip: Chip, constants: dict) -> Settings:
    """Choose how a kernel is launched: the most rows, and the most Gaussians a pass, that spill no registers.

    ``tests/test_ops/test_kernel_resources.py`` reads what came of it from the binaries.

    Args:
        kernel (str): 'forward', 'backward_input' or 'backward_weight'.
        chip (Chip): Where it runs.
        constants (dict): Its compile-time arguments.

    Returns:
        Settings: Rows, share, warps and stages.
    """
    columns = max(constants['BLOCK_F'], constants['BLOCK_O'])
    wide, narrow, is_float = columns > 64, columns < 64, constants['DOT'] == tl.float32
    warpgroups = chip.capability in (90, 100, 103)  # their matrix units take operands from shared memory
    if not uses_matrix_units(chip, constants):
        return dict(
            forward=Settings(32 if is_float and not wide else 16, 2, 8, 1),
            backward_input=Settings(16, 2, 8, 1),
            backward_weight=Settings(16, 1 if wide else 2, 8, 1),
        )[kernel]
    if kernel == 'forward':
        return Settings(32 if wide and is_float else 64, 2, 8 if wide else 4, 1 if warpgroups else 2)
    if kernel == 'backward_input':
        # 64 rows take fewer instructions on sm_90; with Triton from 3.4 to 3.6 they spill 184 to 512 bytes.
        return Settings(64 if narrow else 32, 2, 8 if wide else 4, 1)
    return Settings(32 if warpgroups and not wide else 16, 2 if wide else 8, 8, 1)


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


# Sizes and their reciprocals change with every image size; a kernel for each kind of number would be compiled again.
_SIZES = (
    'num_rows',
    'height',
    'width',
    'across',
    'across_by',
    'across_shift',
    'patches',
    'patches_by',
    'patches_shift',
)
_jit = triton.jit(do_not_specialize=[*_SIZES, 'num_tiles'])


@triton.jit
def _starts(
    rows, height, width, across, across_by, across_shift, patches, patches_by, patches_shift,
    COLUMNS: tl.constexpr, SIDE: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Where rows start in memory, and in their map; rows of a matrix where ``SIDE`` is 0, patches of a map else."""
    if SIDE == 0:
        return rows.to(OFFSET) * COLUMNS, rows, rows
    m = quotient(rows, patches_by, patches_shift)
    rest = rows - m * patches
    i = quotient(rest, across_by, across_shift)
    start = rows.to(OFFSET) * SIDE
    start += m.to(OFFSET) * (height * width - patches * SIDE)
    start += i.to(OFFSET) * ((width - across) * SIDE)
    return start, i * SIDE, (rest - i * across) * SIDE


@triton.jit
def _columns(width, BLOCK: tl.constexpr, SIDE: tl.constexpr):
    """How far the columns of a row lie behind its start."""
    column = tl.arange(0, BLOCK)
    if SIDE == 0:
        return column
    return (column // SIDE) * width + column % SIDE


@triton.jit
def _mask(
    rows, top, left, num_rows, height, width, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, SIDE: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """Which cells of a tile ``[rows, BLOCK]`` exist; no patch is cut by the map's border where ``WHOLE``."""
    column = tl.arange(0, BLOCK)
    mask = (rows < num_rows)[:, None] & (column < COLUMNS)[None, :]
    if SIDE != 0 and not WHOLE:
        mask &= (top[:, None] < (height - column // SIDE)[None, :]) & (left[:, None] < (width - column % SIDE)[None, :])
    return mask


@triton.jit
def _slice(table, k, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Matrix ``k`` of a packed table ``[K, ROWS, COLUMNS]``."""
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    return tl.load(table + (k * ROWS + row)[:, None] * COLUMNS + column[None, :])


@_jit
def _forward_kernel(
    x_ptr, out_ptr, scale, shift, table, bias, num_rows,
    height, width, across, across_by, across_shift, patches, patches_by, patches_shift,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, SIDE: tl.constexpr, WHOLE: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr,
    OFFSET: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    start, top, left = _starts(
        rows, height, width, across, across_by, across_shift, patches, patches_by, patches_shift, IN, SIDE, OFFSET
    )
    mask = _mask(rows, top, left, num_rows, height, width, IN, BLOCK_F, SIDE, WHOLE)
    x = tl.load(x_ptr + start[:, None] + _columns(width, BLOCK_F, SIDE)[None, :], mask=mask, other=0.0).to(tl.float32)
    f, o = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_O)
    out = tl.zeros((BLOCK_R, BLOCK_O), tl.float32)
    if BASE:
        w = tl.trans(_slice(table, G, BLOCK_O, BLOCK_F))
        out = tl.dot((x * sigmoid(x)).to(DOT), w, out, input_precision=PRECISION)
    for g in range(G):
        a = tl.load(scale + g * IN + f, mask=f < IN, other=0.0)
        b = tl.load(shift + g * IN + f, mask=f < IN, other=0.0)
        t = x * a[None, :] - b[None, :]
        w = tl.trans(_slice(table, g, BLOCK_O, BLOCK_F))
        out = tl.dot(tl.exp2(-t * t).to(DOT), w, out, input_precision=PRECISION)
    if BASE:
        out += tl.load(bias + o, mask=o < OUT, other=0.0)[None, :]
        out += x  # in and out features are the patch's pixels
    else:
        start, top, left = _starts(
            rows, height, width, across, across_by, across_shift, patches, patches_by, patches_shift, OUT, SIDE, OFFSET
        )
        mask = _mask(rows, top, left, num_rows, height, width, OUT, BLOCK_O, SIDE, WHOLE)
    address = out_ptr + start[:, None] + _columns(width, BLOCK_O, SIDE)[None, :]
    tl.store(address, out.to(out_ptr.dtype.element_ty), mask=mask)


@_jit
def _backward_input_kernel(
    grad_ptr, x_ptr, grad_x_ptr, scale, shift, table, part_scale, part_shift, part_bias, num_tiles, num_rows,
    height, width, across, across_by, across_shift, patches, patches_by, patches_shift,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, SIDE: tl.constexpr, WHOLE: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_G: tl.constexpr,
    CONSTANT: tl.constexpr, OFFSET: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # Rows are the columns of all tiles here: sums over rows then run along a thread's registers.
    walker = tl.program_id(0)
    f, o, grids = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_O), tl.arange(0, BLOCK_G)
    sum_scale = tl.zeros((BLOCK_F, BLOCK_G), tl.float32)
    sum_shift = tl.zeros((BLOCK_F, BLOCK_G), tl.float32)
    sum_bias = tl.zeros((BLOCK_O,), tl.float32)
    for tile in range(walker, num_tiles, tl.num_programs(0)):
        rows = tile * BLOCK_R + tl.arange(0, BLOCK_R)
        start, top, left = _starts(
            rows, height, width, across, across_by, across_shift, patches, patches_by, patches_shift, IN, SIDE, OFFSET
        )
        mask = _mask(rows, top, left, num_rows, height, width, IN, BLOCK_F, SIDE, WHOLE)
        columns = _columns(width, BLOCK_F, SIDE)
        x = tl.load(x_ptr + start[:, None] + columns[None, :], mask=mask, other=0.0)
        x = tl.trans(x).to(tl.float32)
        if BASE:
            grad = tl.load(grad_ptr + start[:, None] + columns[None, :], mask=mask, other=0.0)
        else:
            start_o, top, left = _starts(
                rows,
                height,
                width,
                across,
                across_by,
                across_shift,
                patches,
                patches_by,
                patches_shift,
                OUT,
                SIDE,
                OFFSET,
            )
            mask_o = _mask(rows, top, left, num_rows, height, width, OUT, BLOCK_O, SIDE, WHOLE)
            columns_o = _columns(width, BLOCK_O, SIDE)
            grad = tl.load(grad_ptr + start_o[:, None] + columns_o[None, :], mask=mask_o, other=0.0)
        grad = tl.trans(grad)
        grad_x = tl.zeros((BLOCK_F, BLOCK_R), tl.float32)
        for g in range(G):
            a = tl.load(scale + g * IN + f, mask=f < IN, other=0.0)
            b = tl.load(shift + g * IN + f, mask=f < IN, other=0.0)
            t = x * a[:, None] - b[:, None]
            w = _slice(table, g, BLOCK_F, BLOCK_O)
            # d 2 ** -t^2 / dt = -2 ln(2) t 2 ** -t^2; the constant follows in the sums
            grad_t = tl.dot(w, grad.to(DOT), input_precision=PRECISION) * (t * tl.exp2(-t * t))
            grad_x += grad_t * a[:, None]
            mine = (grids == g)[None, :]
            sum_scale += tl.where(mine, tl.sum(grad_t * x, 1)[:, None], 0.0)
            sum_shift += tl.where(mine, tl.sum(grad_t, 1)[:, None], 0.0)
        grad_x *= CONSTANT
        if BASE:
            grad_silu = tl.dot(_slice(table, G, BLOCK_F, BLOCK_O), grad.to(DOT), input_precision=PRECISION)
            slope = sigmoid(x)
            grad_x += grad_silu * slope * (1 + x * (1 - slope))
            grad_x += grad.to(tl.float32)
            sum_bias += tl.sum(grad.to(tl.float32), 1)
        address = grad_x_ptr + start[:, None] + columns[None, :]
        tl.store(address, tl.trans(grad_x).to(grad_x_ptr.dtype.element_ty), mask=mask)
    mine = walker * G * IN + grids[None, :] * IN + f[:, None]
    mask = (grids < G)[None, :] & (f < IN)[:, None]
    tl.store(part_scale + mine, CONSTANT * sum_scale, mask=mask)
    tl.store(part_shift + mine, -CONSTANT * sum_shift, mask=mask)
    if BASE:
        tl.store(part_bias + walker * OUT + o, sum_bias, mask=o < OUT)


@_jit
def _backward_weight_kernel(
    grad_ptr, x_ptr, scale, shift, part_table, num_tiles, num_rows,
    height, width, across, across_by, across_shift, patches, patches_by, patches_shift,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, SIDE: tl.constexpr, WHOLE: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_G: tl.constexpr,
    OFFSET: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    walker = tl.program_id(0)
    first = tl.program_id(1) * BLOCK_G
    f, o = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_O)
    # The Gaussians of a group lie one below the other, so that one product serves all.
    k = tl.arange(0, BLOCK_G * BLOCK_F)
    grid, feature = first + k // BLOCK_F, k % BLOCK_F
    exists = (grid < G) & (feature < IN)
    grids = first + tl.arange(0, BLOCK_G)
    inside = (grids < G)[:, None] & (f < IN)[None, :]
    a = tl.load(scale + grids[:, None] * IN + f[None, :], mask=inside, other=0.0)
    b = tl.load(shift + grids[:, None] * IN + f[None, :], mask=inside, other=0.0)
    total = tl.zeros((BLOCK_G * BLOCK_F, BLOCK_O), tl.float32)
    total_base = tl.zeros((BLOCK_F, BLOCK_O), tl.float32)
    for tile in range(walker, num_tiles, tl.num_programs(0)):
        rows = tile * BLOCK_R + tl.arange(0, BLOCK_R)
        start, top, left = _starts(
            rows, height, width, across, across_by, across_shift, patches, patches_by, patches_shift, IN, SIDE, OFFSET
        )
        mask = _mask(rows, top, left, num_rows, height, width, IN, BLOCK_F, SIDE, WHOLE)
        columns = _columns(width, BLOCK_F, SIDE)
        x = tl.load(x_ptr + start[:, None] + columns[None, :], mask=mask, other=0.0).to(tl.float32)
        if BASE:
            grad = tl.load(grad_ptr + start[:, None] + columns[None, :], mask=mask, other=0.0)
        else:
            start, top, left = _starts(
                rows,
                height,
                width,
                across,
                across_by,
                across_shift,
                patches,
                patches_by,
                patches_shift,
                OUT,
                SIDE,
                OFFSET,
            )
            mask = _mask(rows, top, left, num_rows, height, width, OUT, BLOCK_O, SIDE, WHOLE)
            grad = tl.load(grad_ptr + start[:, None] + _columns(width, BLOCK_O, SIDE)[None, :], mask=mask, other=0.0)
        t = x[:, None, :] * a[None, :, :] - b[None, :, :]
        gaussians = tl.reshape(tl.exp2(-t * t), (BLOCK_R, BLOCK_G * BLOCK_F))
        total = tl.dot(tl.trans(gaussians.to(DOT)), grad.to(DOT), total, input_precision=PRECISION)
        if BASE:
            silu = tl.zeros_like(x)
            if first == 0:
                silu = x * sigmoid(x)
            total_base = tl.dot(tl.trans(silu.to(DOT)), grad.to(DOT), total_base, input_precision=PRECISION)
    part_table += walker * (G + BASE) * IN * OUT
    mask = exists[:, None] & (o < OUT)[None, :]
    tl.store(part_table + (grid * IN + feature)[:, None] * OUT + o[None, :], total, mask=mask)
    if BASE:
        mask = (f < IN)[:, None] & (o < OUT)[None, :] & (first == 0)
        tl.store(part_table + (G * IN + f)[:, None] * OUT + o[None, :], total_base, mask=mask)


class _Problem:
    """Sizes of a call, and the launches that it takes.

    Args:
        chip (Chip): Where the kernels run.
        x (Tensor): ``[R, F]`` or, with a patch size, ``[B, C, H, W]``; contiguous.
        scale (Tensor): ``[G, F]``.
        shift (Tensor): ``[G, F]``.
        table (Tensor): ``[K * F, O]``.
        patch_size (int): ``P``; 0 where ``x`` holds rows.
    """

    def __init__(self, chip: Chip, x: Tensor, scale: Tensor, shift: Tensor, table: Tensor, patch_size: int):
        self.chip, self.x, self.scale, self.shift, self.table = chip, x, scale, shift, table
        self.num_grids, self.num_in = scale.shape
        self.num_out = table.shape[1]
        self.num_slices = table.shape[0] // self.num_in
        if patch_size:
            height, width = x.shape[2:]
            down, across = -(-height // patch_size), -(-width // patch_size)
            self.num_rows = x.shape[0] * x.shape[1] * down * across
        else:
            self.num_rows, height, width, down, across = x.shape[0], 1, 1, 1, 1
        self.block_f, self.block_o = (max(MIN_COLUMNS, triton.next_power_of_2(n)) for n in (self.num_in, self.num_out))
        across_by, across_shift = reciprocal(max(1, across))
        patches_by, patches_shift = reciprocal(max(1, down * across))
        sizes = (self.num_rows, height, width, across, across_by, across_shift, down * across)
        self.sizes = dict(zip(_SIZES, (*sizes, patches_by, patches_shift)))
        self.constants = dict(
            IN=self.num_in,
            OUT=self.num_out,
            G=self.num_grids,
            SIDE=patch_size,
            WHOLE=bool(patch_size) and height % patch_size == 0 and width % patch_size == 0,
            BASE=self.num_slices > self.num_grids,
            BLOCK_F=self.block_f,
            BLOCK_O=self.block_o,
            OFFSET=tl.int32 if max(x.numel(), self.num_rows * self.num_out) <= LARGEST_INT32 else tl.int64,
            **dot_constants(x),
        )

    def _packed(self, out_first: bool) -> Tensor:
        """The table in the dtype of the products, padded, so that loads are wide and need no mask; ``[K, ., .]``."""
        table = self.table.view(self.num_slices, self.num_in, self.num_out)
        shape = (self.block_f, self.block_o)
        if out_first:
            table, shape = table.transpose(1, 2), shape[::-1]
        packed = table.new_zeros(self.num_slices, *shape, dtype=dot_dtype(self.x))
        packed[:, : table.shape[1], : table.shape[2]] = table
        return packed

    def forward(self, out: Tensor, bias: Tensor | None) -> Launch:
        """Prepare the forward pass."""
        rows, _, num_warps, num_stages = choose_settings('forward', self.chip, self.constants)
        arguments = dict(
            x_ptr=self.x, out_ptr=out, scale=self.scale, shift=self.shift, table=self._packed(True), bias=bias
        )
        grid = (triton.cdiv(self.num_rows, rows),)
        constants = dict(self.constants, BLOCK_R=rows)
        return Launch(_forward_kernel, grid, arguments | self.sizes, constants, num_warps, num_stages)

    def backward_input(self, grad: Tensor, grad_x: Tensor) -> tuple[Launch, Tensor, Tensor, Tensor]:
        """Prepare the gradient of the input; also gives partial sums of those of scale, shift and bias."""
        rows, programs, num_warps, num_stages = choose_settings('backward_input', self.chip, self.constants)
        num_tiles = triton.cdiv(self.num_rows, rows)
        walkers = min(num_tiles, programs * self.chip.processors)
        parts = [self.scale.new_empty(walkers, self.num_grids, self.num_in) for _ in range(2)]
        parts.append(self.scale.new_empty(walkers, self.num_out))
        arguments = dict(
            grad_ptr=grad, x_ptr=self.x, grad_x_ptr=grad_x, scale=self.scale, shift=self.shift,
            table=self._packed(False), **dict(zip(('part_scale', 'part_shift', 'part_bias'), parts)),
            num_tiles=num_tiles,
        )  # fmt: skip
        block_g = triton.next_power_of_2(self.num_grids)
        constants = dict(self.constants, BLOCK_R=rows, BLOCK_G=block_g, CONSTANT=MINUS_TWO_LN_TWO)
        launch = Launch(_backward_input_kernel, (walkers,), arguments | self.sizes, constants, num_warps, num_stages)
        return launch, *parts

    def backward_weight(self, grad: Tensor) -> tuple[Launch, Tensor]:
        """Prepare the gradient of the table; also gives its partial sums."""
        rows, group, num_warps, num_stages = choose_settings('backward_weight', self.chip, self.constants)
        group = min(group, triton.next_power_of_2(self.num_grids))
        num_tiles = triton.cdiv(self.num_rows, rows)
        walkers = min(num_tiles, self.chip.processors)
        part_table = self.table.new_empty(walkers, *self.table.shape)
        arguments = dict(
            grad_ptr=grad, x_ptr=self.x, scale=self.scale, shift=self.shift, part_table=part_table, num_tiles=num_tiles
        )
        grid = (walkers, triton.cdiv(self.num_grids, group))
        constants = dict(self.constants, BLOCK_R=rows, BLOCK_G=group)
        launch = Launch(_backward_weight_kernel, grid, arguments | self.sizes, constants, num_warps, num_stages)
        return launch, part_table


@torch.library.custom_op('vik_mm::rbf_kan_triton', mutates_args=())
def _forward(x: Tensor, scale: Tensor, shift: Tensor, table: Tensor, bias: Tensor | None, patch_size: int) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x) if patch_size else x.new_empty(x.shape[0], table.shape[1])
    problem = _Problem(chip_of(x), x, scale, shift, table, patch_size)
    if problem.num_rows:
        problem.forward(out, bias).run()
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
    problem = _Problem(chip_of(x), x, scale, shift, table, patch_size)
    if not problem.num_rows:
        zeros = (torch.zeros_like(t) for t in (scale, shift, table))
        return grad_x, *zeros, scale.new_zeros(problem.num_out)
    launch, part_scale, part_shift, part_bias = problem.backward_input(grad_out, grad_x)
    launch.run()
    launch, part_table = problem.backward_weight(grad_out)
    launch.run()
    grad_bias = part_bias.sum(0) if has_base else scale.new_zeros(problem.num_out)
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
