"""The RBF-KAN operator in blocks of rows, so that the basis never exists as a whole.

The forward pass evaluates the Gaussians of one block, multiplies them with the weight and drops them; the backward pass
evaluates them again. What autograd keeps is the input alone, an eighth of what the reference keeps once.

With ``a = 1 / (sqrt(2) w)`` and ``b = c a`` a Gaussian is ``exp(-(a x - b)^2)``: one multiply-add, a square and an
exponential. Inside a block the basis lies as ``[rows, G, F]``, so that ``x`` is read along its fast axis.

Shape letters: ``R`` rows, ``F`` in features, ``G`` Gaussians per feature, ``O`` out features.
"""

import math

import torch
from torch import Tensor

# A block of 2048 x 8 x 49 float32 values is 3 MB: it stays in the cache of the core that made it.
BLOCK_ELEMENTS = 2048 * 8 * 49


def rbf_kan_chunked(x: Tensor, centers: Tensor, widths: Tensor, weight: Tensor) -> Tensor:
    """Evaluate the operator block by block; see :func:`vik_mm.ops.rbf_kan` for arguments and result."""
    num_in, num_grids = centers.shape
    scale = (1 / (math.sqrt(2) * widths)).t().contiguous()  # [G, F]
    shift = centers.t() * scale
    by_grid = weight.unflatten(0, (num_in, num_grids)).transpose(0, 1).flatten(0, 1)  # [G * F, O]
    rows = x.reshape(-1, num_in)
    return _forward(rows, scale, shift, by_grid).unflatten(0, x.shape[:-1])


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _blocks(num_rows: int, scale: Tensor):
    """Yield slices that cut ``num_rows`` rows into blocks of about ``BLOCK_ELEMENTS`` basis values."""
    step = max(1, BLOCK_ELEMENTS // scale.numel())
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def _argument(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Distance of every value from every centre in units of the widths, ``[R, G, F]``."""
    return torch.addcmul(shift.neg(), x.unsqueeze(1), scale)


@torch.library.custom_op('vik_mm::rbf_kan_chunked', mutates_args=())
def _forward(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
    dtype = _compute_dtype(x)
    scale, shift, weight = scale.to(dtype), shift.to(dtype), weight.to(dtype)
    out = x.new_empty(x.shape[0], weight.shape[1])
    for block in _blocks(x.shape[0], scale):
        basis = _argument(x[block].to(dtype), scale, shift).square_().neg_().exp_()
        if out.dtype == dtype:
            torch.mm(basis.flatten(1), weight, out=out[block])
        else:
            out[block] = basis.flatten(1) @ weight
    return out


@_forward.register_fake
def _(x, scale, shift, weight):
    return x.new_empty(x.shape[0], weight.shape[1])


@torch.library.custom_op('vik_mm::rbf_kan_chunked_backward', mutates_args=())
def _backward(
    grad_out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = _compute_dtype(x)
    scale_, shift_, weight_ = scale.to(dtype), shift.to(dtype), weight.to(dtype)
    grad_x = torch.empty_like(x)
    grad_scale, grad_shift, grad_weight = (torch.zeros_like(t) for t in (scale_, shift_, weight_))
    for block in _blocks(x.shape[0], scale_):
        rows, grad_rows = x[block].to(dtype), grad_out[block].to(dtype)
        argument = _argument(rows, scale_, shift_)
        basis = argument.square().neg_().exp_()
        grad_weight.addmm_(basis.flatten(1).t(), grad_rows)
        # d exp(-t^2) / dt = -2 t exp(-t^2); t = scale * x - shift
        grad_argument = (grad_rows @ weight_.t()).view_as(basis).mul_(basis).mul_(argument).mul_(-2)
        grad_shift.sub_(grad_argument.sum(0))
        torch.mul(grad_argument, rows.unsqueeze(1), out=basis)
        grad_scale.add_(basis.sum(0))
        grad_x[block] = grad_argument.mul_(scale_).sum(1)
    return grad_x, grad_scale.to(scale.dtype), grad_shift.to(shift.dtype), grad_weight.to(weight.dtype)


@_backward.register_fake
def _(grad_out, x, scale, shift, weight):
    return torch.empty_like(x), torch.empty_like(scale), torch.empty_like(shift), torch.empty_like(weight)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


_forward.register_autograd(lambda ctx, grad_out: _backward(grad_out, *ctx.saved_tensors), setup_context=_setup_context)
