"""The first use of a Triton kernel on a device: it must give what the plain form gives, or another backend takes over.

The kernels are compiled on the user's machine, by the user's Triton, for the user's chip; the project cannot have tried
all of these. So the first call of an operator with a device, a dtype and sizes runs it on a few rows, forward and
backward, and compares. That takes milliseconds beside the compilation, which the call needs anyway. Each process
checks for itself and waits for no other.
"""

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from .backends import is_traced

# Largest error allowed, over the largest value: some times that of the dtype's products (float32: of TF32's).
TOLERANCES = {torch.float32: 5e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}
_outcomes: dict[tuple, str | None] = {}
_lock = threading.Lock()


def wave(*shape: int, scale: float = 1.0, offset: float = 0.0) -> Tensor:
    """Fill a float64 tensor with numbers between ``offset - scale`` and ``offset + scale``, the same every time.

    Random numbers would change those that the user's program draws after them.
    """
    return torch.arange(math.prod(shape), dtype=torch.float64).mul(0.7).sin().mul(scale).add(offset).view(shape)


def find_obstacle(
    operator: str,
    x: Tensor,
    dtype: torch.dtype,
    sizes: tuple,
    arguments: Callable[..., Sequence[Any]],
    plain: Callable[..., Tensor],
    kernels: Callable[..., Tensor],
) -> str | None:
    """Check an operator's kernels once for each device, dtype and sizes.

    Args:
        operator (str): Its name, for the message.
        x (Tensor): What the operator is called with; only its device matters.
        dtype (torch.dtype): In which the kernels compute.
        sizes (tuple): What the kernels are compiled for.
        arguments (Callable): ``arguments(*sizes)`` gives the operator's arguments, the input first, on a CPU.
        plain (Callable): The operator as its formula.
        kernels (Callable): The operator by its kernels.

    Returns:
        str, optional: What went wrong; None if nothing did. Also None where no check is possible now, because the call
        is traced by a compiler or recorded for a CUDA graph; the next call then checks.
    """
    key = (operator, x.device.type, x.device.index, dtype, torch.backends.cuda.matmul.allow_tf32, sizes)
    if key in _outcomes:
        return _outcomes[key]
    if not _can_check(x):
        return None
    # Two threads may both check. A lock around the check could wait for a backward pass that waits for the lock.
    error = _try(x.device, dtype, arguments(*sizes), plain, kernels)
    with _lock:
        is_first = key not in _outcomes
        if is_first:
            _outcomes[key] = error and f'its first use failed: {error}'
    if is_first and error:
        warnings.warn(_report(operator, x.device, dtype, sizes, error), stacklevel=2)
    return _outcomes[key]


def _can_check(x: Tensor) -> bool:
    if is_traced() or type(x) not in (Tensor, torch.nn.Parameter):
        return False
    return not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


def _try(device: torch.device, dtype: torch.dtype, arguments: Sequence[Any], plain: Callable, kernels: Callable):
    """Run both forms, whatever state the caller's call is in; give the error as text, or None."""
    modes = (
        _disable_current_modes(),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    )
    with modes[0], modes[1], modes[2], modes[3]:
        given = [
            a.to(device, dtype if i == 0 else torch.float32) if isinstance(a, Tensor) else a
            for i, a in enumerate(arguments)
        ]
        truths = _output_and_gradients(plain, [a.double() if isinstance(a, Tensor) else a for a in given], dtype)
        try:
            answers = _output_and_gradients(kernels, given, dtype)
        except torch.OutOfMemoryError:  # says nothing about the kernels
            raise
        except Exception as error:  # compilers, drivers and a missing C compiler have many kinds
            return f'{type(error).__name__}: {error}'.strip()
        for number, (truth, answer) in enumerate(zip(truths, answers)):
            largest = float((answer.double() - truth).abs().max() / truth.abs().max())
            if not largest <= TOLERANCES[dtype]:  # also where it is no number
                part = f'the gradient of argument {number}' if number else 'the output'
                return f'wrong values: {part} is off by {largest:.2g} of its largest value'
    return None


def _output_and_gradients(function: Callable, arguments: Sequence[Any], dtype: torch.dtype) -> list[Tensor]:
    arguments = [a.detach().requires_grad_() if isinstance(a, Tensor) else a for a in arguments]
    out = function(*arguments)
    seed = wave(*out.shape).to(out.device, dtype).to(out.dtype)  # the same numbers for both forms
    return [out.detach(), *torch.autograd.grad(out, [a for a in arguments if isinstance(a, Tensor)], seed)]


def _report(operator: str, device: torch.device, dtype: torch.dtype, sizes: tuple, error: str) -> str:
    name = 'CPU'
    if device.type == 'cuda':
        name = f'{torch.cuda.get_device_name(device)}, capability {torch.cuda.get_device_capability(device)}'
    return (
        f"the Triton kernels of {operator} do not work here, backend 'chunked' takes their place: the answers are "
        f'right, but slower. Please report this line: {name}; triton {metadata.version("triton")}, torch '
        f'{torch.__version__}; {operator}, {dtype}, sizes {sizes}: {error}'
    )
