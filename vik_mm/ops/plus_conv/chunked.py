"""The plus-shaped convolution as five multiply-adds over shifted views, a few channels at a time.

Of two maps of a block one is read and one written five times, in cache. PyTorch's depthwise convolutions on a CPU are
many times slower for kernels of three pixels, and want the map twice, once for each axis.

Shape letters: ``M`` images times channels.
"""

import torch
from torch import Tensor

from vik_mm.ops.backends import compute_dtype, plain_or_operator

# Two blocks of float32 values take 2 MB: they stay in the caches of the cores that made them.
BLOCK_ELEMENTS = 256 * 1024
# Where the taps that are not the centre read and write: (axis, position, (rows, columns) read, those written).
_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
NEIGHBOURS = (
    (0, 0, (_ALL, _FIRST, _ALL), (_ALL, _LAST, _ALL)),  # above
    (0, 2, (_ALL, _LAST, _ALL), (_ALL, _FIRST, _ALL)),  # below
    (1, 0, (_ALL, _ALL, _FIRST), (_ALL, _ALL, _LAST)),  # left
    (1, 2, (_ALL, _ALL, _LAST), (_ALL, _ALL, _FIRST)),  # right
)


def plus_conv2d_chunked(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """Evaluate the convolution block by block; see :func:`vik_mm.ops.plus_conv2d` for arguments and result."""
    return plain_or_operator(_apply, _operator)(x, taps, bias)


def _blocks(*tensors: Tensor, pixels: int):
    """Cut tensors ``[M, ...]`` into blocks of channels."""
    size = max(1, BLOCK_ELEMENTS // max(1, pixels))
    return zip(*(t.split(size) for t in tensors))


def _convolve(x: Tensor, taps: Tensor, bias: Tensor, out: Tensor) -> None:
    """``[M, H, W], [M, 2, 3], [M] -> [M, H, W]``, into ``out``."""
    taps = taps[..., None, None]
    torch.addcmul(bias[:, None, None], x, taps[:, 0, 1] + taps[:, 1, 1], out=out)
    for axis, k, source, target in NEIGHBOURS:
        out[target].addcmul_(x[source], taps[:, axis, k])


def _apply(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """``[B, C, H, W], [B, C, 2, 3], [B, C] -> [B, C, H, W]``."""
    dtype = compute_dtype(x)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    sizes = x.shape[2:]
    flat = (x.reshape(-1, *sizes), taps.reshape(-1, 2, 3).to(dtype), bias.reshape(-1).to(dtype), out.view(-1, *sizes))
    for x_, taps_, bias_, out_ in _blocks(*flat, pixels=sizes.numel()):
        if x.dtype == dtype:
            _convolve(x_, taps_, bias_, out_)
        else:
            x_ = x_.to(dtype)
            answer = torch.empty_like(x_)
            _convolve(x_, taps_, bias_, answer)
            out_.copy_(answer)
    return out


_operator = torch.library.custom_op('vik_mm::plus_conv2d_chunked', _apply, mutates_args=())


@_operator.register_fake
def _(x, taps, bias):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op('vik_mm::plus_conv2d_chunked_backward', mutates_args=())
def _backward(grad_out: Tensor, x: Tensor, taps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad_x = _apply(grad_out, taps.flip(3), taps.new_zeros(taps.shape[:2]))
    dtype, sizes = compute_dtype(x), x.shape[2:]
    grad_taps = torch.empty(taps.shape, dtype=dtype, device=x.device)
    grad_bias = torch.empty(taps.shape[:2], dtype=dtype, device=x.device)
    flat = (grad_out.reshape(-1, *sizes), x.reshape(-1, *sizes), grad_taps.view(-1, 2, 3), grad_bias.view(-1))
    for grad, x_, grad_taps_, grad_bias_ in _blocks(*flat, pixels=sizes.numel()):
        grad, x_ = grad.to(dtype), x_.to(dtype)
        torch.sum(grad, (1, 2), out=grad_bias_)
        grad_taps_[:, :, 1] = (grad * x_).sum((1, 2))[:, None]
        for axis, k, source, target in NEIGHBOURS:
            grad_taps_[:, axis, k] = (grad[target] * x_[source]).sum((1, 2))
    return grad_x, grad_taps.to(taps.dtype), grad_bias.to(taps.dtype)


@_backward.register_fake
def _(grad_out, x, taps):
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return grad_x, torch.empty_like(taps), taps.new_empty(taps.shape[:2])


def _setup_context(ctx, inputs, output):
    x, taps, _ = inputs
    ctx.save_for_backward(x, taps)


_operator.register_autograd(lambda ctx, grad: _backward(grad, *ctx.saved_tensors), setup_context=_setup_context)
