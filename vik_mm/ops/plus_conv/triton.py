"""The plus-shaped convolution as Triton kernels: one read and one write of the map.

A program of the forward kernel computes a run of pixels of one channel; the neighbours it reads come from the cache.
The backward pass is the same kernel with the taps turned about, and one that sums the taps' gradients. Its programs
take a part of a channel each, as many as keep all processors busy, and their sums are joined in a fixed order.

Shape letters: ``M`` images times channels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from vik_mm.ops.launch import Chip, Launch, chip_of, quotient, reciprocal

BLOCK_PIXELS = 1024
NUM_WARPS = 4
PROGRAMS_PER_PROCESSOR = 16  # with 4 warps each they fill it


def plus_conv2d_triton(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """Evaluate the convolution on a GPU; see :func:`vik_mm.ops.plus_conv2d` for arguments and result."""
    return _forward(x, taps.float(), bias.float())


# Sizes change with every image size; a kernel for each kind of number would be compiled again.
_jit = triton.jit(do_not_specialize=['width', 'width_by', 'width_shift', 'pixels', 'parts'])


@triton.jit
def _neighbours(x_ptr, pixel, mask, width, width_by, width_shift, pixels):
    """A run of pixels of a channel, and what lies above, below, left and right of each."""
    column = pixel - quotient(pixel, width_by, width_shift) * width
    center = tl.load(x_ptr + pixel, mask=mask, other=0.0).to(tl.float32)
    above = tl.load(x_ptr + pixel - width, mask=mask & (pixel >= width), other=0.0).to(tl.float32)
    below = tl.load(x_ptr + pixel + width, mask=mask & (pixel + width < pixels), other=0.0).to(tl.float32)
    left = tl.load(x_ptr + pixel - 1, mask=mask & (column > 0), other=0.0).to(tl.float32)
    right = tl.load(x_ptr + pixel + 1, mask=mask & (column + 1 < width), other=0.0).to(tl.float32)
    return center, above, below, left, right


@_jit
def _forward_kernel(
    x_ptr, out_ptr, taps, bias, width, width_by, width_shift, pixels, BLOCK: tl.constexpr, FLIP: tl.constexpr
):  # fmt: skip
    channel = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < pixels
    x_ptr += channel * pixels
    center, above, below, left, right = _neighbours(x_ptr, pixel, mask, width, width_by, width_shift, pixels)
    if FLIP:  # of the backward pass
        above, below, left, right = below, above, right, left
    taps += channel * 6
    out = (tl.load(taps + 1) + tl.load(taps + 4)) * center
    if not FLIP:
        out += tl.load(bias + channel)
    out += tl.load(taps) * above + tl.load(taps + 2) * below
    out += tl.load(taps + 3) * left + tl.load(taps + 5) * right
    tl.store(out_ptr + channel * pixels + pixel, out.to(out_ptr.dtype.element_ty), mask=mask)


@_jit
def _backward_taps_kernel(
    grad_ptr, x_ptr, sums, width, width_by, width_shift, pixels, parts, BLOCK: tl.constexpr
):  # fmt: skip
    channel, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    x_ptr += channel * pixels
    sum_center = tl.zeros((BLOCK,), tl.float32)
    sum_above = tl.zeros((BLOCK,), tl.float32)
    sum_below = tl.zeros((BLOCK,), tl.float32)
    sum_left = tl.zeros((BLOCK,), tl.float32)
    sum_right = tl.zeros((BLOCK,), tl.float32)
    sum_bias = tl.zeros((BLOCK,), tl.float32)
    for start in range(part * BLOCK, pixels, parts * BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        mask = pixel < pixels
        grad = tl.load(grad_ptr + channel * pixels + pixel, mask=mask, other=0.0).to(tl.float32)
        center, above, below, left, right = _neighbours(x_ptr, pixel, mask, width, width_by, width_shift, pixels)
        sum_center += grad * center
        sum_above += grad * above
        sum_below += grad * below
        sum_left += grad * left
        sum_right += grad * right
        sum_bias += grad
    sums += (channel * parts + part) * 6
    tl.store(sums, tl.sum(sum_above))
    tl.store(sums + 1, tl.sum(sum_center))
    tl.store(sums + 2, tl.sum(sum_below))
    tl.store(sums + 3, tl.sum(sum_left))
    tl.store(sums + 4, tl.sum(sum_bias))
    tl.store(sums + 5, tl.sum(sum_right))


def _block(pixels: int) -> int:
    """Pixels of a program: no more than there are, on the small maps of late stages."""
    return min(BLOCK_PIXELS, max(128, triton.next_power_of_2(pixels)))


def _sizes(x: Tensor) -> dict[str, int]:
    width_by, width_shift = reciprocal(x.shape[3])
    return dict(width=x.shape[3], width_by=width_by, width_shift=width_shift, pixels=x.shape[2:].numel())


def _convolution(x: Tensor, out: Tensor, taps: Tensor, bias: Tensor | None) -> Launch:
    """Prepare the convolution; that of the backward pass, with the taps turned about, where there is no bias."""
    sizes = _sizes(x)
    block = _block(sizes['pixels'])
    grid = (x.shape[:2].numel(), triton.cdiv(sizes['pixels'], block))
    arguments = dict(x_ptr=x, out_ptr=out, taps=taps, bias=bias, **sizes)
    return Launch(_forward_kernel, grid, arguments, dict(BLOCK=block, FLIP=bias is None), NUM_WARPS, 1)


def _taps_gradient(chip: Chip, grad: Tensor, x: Tensor) -> tuple[Launch, Tensor]:
    """Prepare the gradient of taps and bias; also gives its partial sums, ``[B, C, parts, 6]``."""
    channels, sizes = x.shape[:2].numel(), _sizes(x)
    block = _block(sizes['pixels'])
    enough = triton.cdiv(PROGRAMS_PER_PROCESSOR * chip.processors, channels)
    parts = min(triton.cdiv(sizes['pixels'], block), enough)
    sums = torch.empty(*x.shape[:2], parts, 6, device=x.device)
    arguments = dict(grad_ptr=grad, x_ptr=x, sums=sums, parts=parts, **sizes)
    return Launch(_backward_taps_kernel, (channels, parts), arguments, dict(BLOCK=block), NUM_WARPS, 1), sums


@torch.library.custom_op('vik_mm::plus_conv2d_triton', mutates_args=())
def _forward(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    if out.numel():
        _convolution(x, out, taps.contiguous(), bias.contiguous()).run()
    return out


@_forward.register_fake
def _(x, taps, bias):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op('vik_mm::plus_conv2d_triton_backward', mutates_args=())
def _backward(grad_out: Tensor, x: Tensor, taps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, grad_out, taps = x.contiguous(), grad_out.contiguous(), taps.contiguous()
    grad_x = torch.empty_like(x)
    if not x.numel():
        return grad_x, torch.zeros_like(taps), taps.new_zeros(taps.shape[:2])
    _convolution(grad_out, grad_x, taps, None).run()
    launch, sums = _taps_gradient(chip_of(x), grad_out, x)
    launch.run()
    sums = sums.sum(2)
    grad_taps = sums.clone().view_as(taps)
    grad_taps[:, :, 1, 1] = grad_taps[:, :, 0, 1]  # both taps are the centre; the sum of the bias lay there
    return grad_x, grad_taps, sums[:, :, 4].clone()


@_backward.register_fake
def _(grad_out, x, taps):
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return grad_x, torch.empty_like(taps, memory_format=torch.contiguous_format), taps.new_empty(taps.shape[:2])


def _setup_context(ctx, inputs, output):
    x, taps, _ = inputs
    ctx.save_for_backward(x, taps)


_forward.register_autograd(lambda ctx, grad: _backward(grad, *ctx.saved_tensors), setup_context=_setup_context)
