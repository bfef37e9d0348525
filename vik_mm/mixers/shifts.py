"""Sums over shifted views of a map, for mixers that look at pixels at fixed distances.

All windows at once would take as many maps of memory as there are distances, and autograd's gradient of a view is a
whole map. Here both passes go through the views one after the other, and the gradients add up in place.

Shape letters: ``B`` images, ``G`` groups, ``m`` channels of a group, ``S`` shifts; the padded map is of ``H'`` and
``W'``, and a shift is the padded row and column at which a view of ``H`` and ``W`` starts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vik_mm.ops import is_traced

Shifts = Sequence[tuple[int, int]]


def shifted_products(x: Tensor, padded: Tensor, shifts: Shifts) -> Tensor:
    """Multiply each pixel with the pixels at the shifts, and add up over the channels of a group.

    Args:
        x (Tensor): ``[B, G, m, H, W]``.
        padded (Tensor): ``[B, G, m, H', W']``.
        shifts (Shifts): ``S`` pairs of row and column.

    Returns:
        Tensor: ``[B, G, S, H, W]``.
    """
    if is_traced():
        return torch.stack([(x * view).sum(2) for view in _views(padded, shifts, x.shape[-2:])], dim=2)
    return _ShiftedProducts.apply(x, padded, shifts)


def shifted_sum(weights: Tensor, padded: Tensor, shifts: Shifts) -> Tensor:
    """Add up the pixels at the shifts, weighed.

    Args:
        weights (Tensor): ``[B, G, S, H, W]``.
        padded (Tensor): ``[B, G, m, H', W']``.
        shifts (Shifts): ``S`` pairs of row and column.

    Returns:
        Tensor: ``[B, G, m, H, W]``.
    """
    weights = weights.to(padded.dtype)  # autocast gives a softmax of its own dtype
    if is_traced():
        views = _views(padded, shifts, weights.shape[-2:])
        products = [weights[:, :, number, None] * view for number, view in enumerate(views)]
        return sum(products[1:], start=products[0])
    return _ShiftedSum.apply(weights, padded, shifts)


class _ShiftedProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, padded, shifts):
        ctx.save_for_backward(x, padded)
        ctx.shifts = shifts
        return _multiply(x, padded, shifts)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, padded = ctx.saved_tensors
        wants_x, wants_padded, _ = ctx.needs_input_grad
        grad_x = _gather(grad, padded, ctx.shifts) if wants_x else None
        return grad_x, _scatter(grad, x, padded, ctx.shifts) if wants_padded else None, None


class _ShiftedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, padded, shifts):
        ctx.save_for_backward(weights, padded)
        ctx.shifts = shifts
        return _gather(weights, padded, shifts)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weights, padded = ctx.saved_tensors
        wants_weights, wants_padded, _ = ctx.needs_input_grad
        grad_weights = _multiply(grad, padded, ctx.shifts) if wants_weights else None
        return grad_weights, _scatter(weights, grad, padded, ctx.shifts) if wants_padded else None, None


def _multiply(x: Tensor, padded: Tensor, shifts: Shifts) -> Tensor:
    out = x.new_empty(*x.shape[:2], len(shifts), *x.shape[3:])
    for number, view in enumerate(_views(padded, shifts, x.shape[-2:])):
        torch.sum(x * view, dim=2, out=out[:, :, number])
    return out


def _gather(weights: Tensor, padded: Tensor, shifts: Shifts) -> Tensor:
    out = weights.new_zeros(*padded.shape[:3], *weights.shape[3:])
    for number, view in enumerate(_views(padded, shifts, weights.shape[-2:])):
        out.addcmul_(weights[:, :, number, None], view)
    return out


def _scatter(weights: Tensor, x: Tensor, padded: Tensor, shifts: Shifts) -> Tensor:
    """Add each pixel, weighed, to where its shifts are: the gradient of the padded map."""
    out = torch.zeros_like(padded)
    for number, view in enumerate(_views(out, shifts, x.shape[-2:])):
        view.addcmul_(weights[:, :, number, None], x)
    return out


def _views(padded: Tensor, shifts: Shifts, size: Sequence[int]) -> list[Tensor]:
    return [padded[..., row : row + size[0], column : column + size[1]] for row, column in shifts]
