"""Lets PyTorch's ``FlopCounterMode`` see what the operators compute.

The counter sees an operator where gradients are on. Under ``torch.no_grad()`` only the function inside of it runs, and
the counter misses what is no matrix product.
"""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import register_flop_formula


def register_flops(name: str, formula: Callable[..., int]) -> None:
    """Register how much an operator computes, in all backends that have it, and in its backward pass.

    Args:
        name (str): E.g. 'plus_conv2d', of the operators ``vik_mm::plus_conv2d_chunked`` and
            ``vik_mm::plus_conv2d_chunked_backward``.
        formula (Callable): Of the shapes of the operator's arguments; gives its floating-point operations, two for a
            multiply-add. The backward pass takes as many for the input, and as many for the weights.
    """

    def of_forward(*shapes, out_shape=None, **kwargs) -> int:
        return formula(*shapes)

    def of_backward(grad_shape, *shapes, out_shape=None, **kwargs) -> int:
        return 2 * formula(*shapes)

    for backend in ('chunked', 'triton'):
        if hasattr(torch.ops.vik_mm, f'{name}_{backend}'):
            register_flop_formula(getattr(torch.ops.vik_mm, f'{name}_{backend}'))(of_forward)
            register_flop_formula(getattr(torch.ops.vik_mm, f'{name}_{backend}_backward'))(of_backward)
