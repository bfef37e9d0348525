"""The plus-shaped convolution as Triton kernels: one read and one write of the map.

A program of the forward kernel computes a run of pixels of one channel; the neighbours it reads come from the cache.
The backward pass is the same kernel with the taps turned about, and one program a channel that sums the taps' gradients
over the map, in a fixed order.

Shape letters: ``M`` images times channels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_PIXELS = 1024


def plus_conv2d_triton(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """Evaluate the convolution on a GPU; see :func:`vik_mm.ops.plus_conv2d` for arguments and result."""
    return _forward(x, taps.float(), bias.float())


@triton.jit
def _neighbours(x_ptr, pixel, mask, width, pixels):
    """A run of pixels of a channel, and what lies above, below, left and right of each."""
    column = pixel % width
    center = tl.load(x_ptr + pixel, mask=mask, other=0.0).to(tl.float32)
    above = tl.load(x_ptr + pixel - width, mask=mask & (pixel >= width), other=0.0).to(tl.float32)
    below = tl.load(x_ptr + pixel + width, mask=mask & (pixel + width < pixels), other=0.0).to(tl.float32)
    left = tl.load(x_ptr + pixel - 1, mask=mask & (column > 0), other=0.0).to(tl.float32)
    right = tl.load(x_ptr + pixel + 1, mask=mask & (column + 1 < width), other=0.0).to(tl.float32)
    return center, above, below, left, right


@triton.jit
def _forward_kernel(x_ptr, out_ptr, taps, bias, width, pixels, BLOCK: tl.constexpr):
    channel = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < pixels
    center, above, below, left, right = _neighbours(x_ptr + channel * pixels, pixel, mask, width, pixels)
    taps += channel * 6
    out = tl.load(bias + channel) + (tl.load(taps + 1) + tl.load(taps + 4)) * center
    out += tl.load(taps) * above + tl.load(taps + 2) * below
    out += tl.load(taps + 3) * left + tl.load(taps + 5) * right
    tl.store(out_ptr + channel * pixels + pixel, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward_taps_kernel(grad_ptr, x_ptr, grad_taps, grad_bias, width, pixels, BLOCK: tl.constexpr):
    channel = tl.program_id(0).to(tl.int64)
    sum_center = tl.zeros((BLOCK,), tl.float32)
    sum_above = tl.zeros((BLOCK,), tl.float32)
    sum_below = tl.zeros((BLOCK,), tl.float32)
    sum_left = tl.zeros((BLOCK,), tl.float32)
    sum_right = tl.zeros((BLOCK,), tl.float32)
    sum_bias = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, pixels, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        mask = pixel < pixels
        grad = tl.load(grad_ptr + channel * pixels + pixel, mask=mask, other=0.0).to(tl.float32)
        center, above, below, left, right = _neighbours(x_ptr + channel * pixels, pixel, mask, width, pixels)
        sum_center += grad * center
        sum_above += grad * above
        sum_below += grad * below
        sum_left += grad * left
        sum_right += grad * right
        sum_bias += grad
    grad_taps += channel * 6
    grad_center = tl.sum(sum_center)
    tl.store(grad_taps, tl.sum(sum_above))
    tl.store(grad_taps + 1, grad_center)
    tl.store(grad_taps + 2, tl.sum(sum_below))
    tl.store(grad_taps + 3, tl.sum(sum_left))
    tl.store(grad_taps + 4, grad_center)
    tl.store(grad_taps + 5, tl.sum(sum_right))
    tl.store(grad_bias + channel, tl.sum(sum_bias))


def _apply(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    x, taps, bias = x.contiguous(), taps.contiguous(), bias.contiguous()
    out = torch.empty_like(x)
    pixels, channels = x.shape[2:].numel(), x.shape[:2].numel()
    if out.numel():
        # Grids are bounded to 65,535 programs in all directions but the first.
        for part in range(0, channels, 65535):
            rows = slice(part, part + 65535)
            x_, out_, taps_, bias_ = (t.flatten(0, 1)[rows] for t in (x, out, taps, bias))
            grid = (triton.cdiv(pixels, BLOCK_PIXELS), x_.shape[0])
            _forward_kernel[grid](x_, out_, taps_, bias_, x.shape[3], pixels, BLOCK=BLOCK_PIXELS)
    return out


@torch.library.custom_op('vik_mm::plus_conv2d_triton', mutates_args=())
def _forward(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    return _apply(x, taps, bias)


@_forward.register_fake
def _(x, taps, bias):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op('vik_mm::plus_conv2d_triton_backward', mutates_args=())
def _backward(grad_out: Tensor, x: Tensor, taps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, grad_out = x.contiguous(), grad_out.contiguous()
    grad_x = _apply(grad_out, taps.flip(3), taps.new_zeros(taps.shape[:2]))
    grad_taps = torch.zeros_like(taps, memory_format=torch.contiguous_format)
    grad_bias = taps.new_zeros(taps.shape[:2])
    if x.numel():
        pixels = x.shape[2:].numel()
        _backward_taps_kernel[(x.shape[:2].numel(),)](
            grad_out, x, grad_taps, grad_bias, x.shape[3], pixels, BLOCK=BLOCK_PIXELS
        )
    return grad_x, grad_taps, grad_bias


@_backward.register_fake
def _(grad_out, x, taps):
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return grad_x, torch.empty_like(taps, memory_format=torch.contiguous_format), taps.new_empty(taps.shape[:2])


def _setup_context(ctx, inputs, output):
    x, taps, _ = inputs
    ctx.save_for_backward(x, taps)


_forward.register_autograd(lambda ctx, grad: _backward(grad, *ctx.saved_tensors), setup_context=_setup_context)
