"""The RBF-KAN operator as Triton kernels: the basis lives in registers and is never written.

The kernels are in ``forward_kernel.py`` and ``backward_kernels.py``; the addresses that they share are in ``tiles.py``.
Here is how they are launched.

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
    reciprocal,
    uses_matrix_units,
)

from .backward_kernels import backward_input_kernel, backward_weight_kernel
from .chunked import fold
from .forward_kernel import forward_kernel
from .tiles import SIZES

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
        self.sizes = dict(zip(SIZES, (*sizes, patches_by, patches_shift)))
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
        return Launch(forward_kernel, grid, arguments | self.sizes, constants, num_warps, num_stages)

    def backward_input(self, grad: Tensor, grad_x: Tensor) -> tuple[Launch, Tensor, Tensor, Tensor]:
        """Prepare the gradient of the input; also gives partial sums of those of scale, shift and bias."""
        rows, programs, num_warps, num_stages = choose_settings('backward_input', self.chip, self.constants)
        num_tiles = triton.cdiv(self.num_rows, rows)
        walkers = min(num_tiles, programs * self.chip.processors)
        part_scale, part_shift = (self.scale.new_empty(walkers, self.num_grids, self.num_in) for _ in range(2))
        part_bias = self.scale.new_empty(walkers, self.num_out)
        arguments = dict(
            grad_ptr=grad, x_ptr=self.x, grad_x_ptr=grad_x, scale=self.scale, shift=self.shift,
            table=self._packed(False), part_scale=part_scale, part_shift=part_shift, part_bias=part_bias,
            num_tiles=num_tiles,
        )  # fmt: skip
        block_g = triton.next_power_of_2(self.num_grids)
        constants = dict(self.constants, BLOCK_R=rows, BLOCK_G=block_g, CONSTANT=MINUS_TWO_LN_TWO)
        launch = Launch(backward_input_kernel, (walkers,), arguments | self.sizes, constants, num_warps, num_stages)
        return launch, part_scale, part_shift, part_bias

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
        launch = Launch(backward_weight_kernel, grid, arguments | self.sizes, constants, num_warps, num_stages)
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
        grad_scale, grad_shift, grad_table = (torch.zeros_like(t) for t in (scale, shift, table))
        return grad_x, grad_scale, grad_shift, grad_table, scale.new_zeros(problem.num_out)
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
