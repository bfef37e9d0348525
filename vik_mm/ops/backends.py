"""How an operator's backend is chosen: one place decides, and says why."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import metadata
from typing import NamedTuple

import torch
from packaging.version import Version
from torch import Tensor

from vik_mm.errors import BadInputError, UnavailableError

NAMES = ('chunked', 'reference', 'triton')
OLDEST_TRITON = '3.2'  # that of PyTorch 2.6; the kernels' answers are no numbers with 3.1


def _has_triton() -> bool:
    try:  # it comes with PyTorch's CUDA builds for Linux
        return Version(metadata.version('triton')) >= Version(OLDEST_TRITON)
    except metadata.PackageNotFoundError:
        return False


HAS_TRITON = _has_triton()
# Triton reads it when kernels are defined, which is when this package is imported.
INTERPRETS_TRITON = os.environ.get('TRITON_INTERPRET') == '1'
_is_exporting = False


class Backend(NamedTuple):
    """A backend's name and why it was taken."""

    name: str
    reason: str


def choose(
    x: Tensor, backend: str | None, obstacle: str | None, first_contact: Callable[[], str | None] = lambda: None
) -> Backend:
    """Choose the backend of an operator.

    Args:
        x (Tensor): The operator's input.
        backend (str, optional): The backend asked for; None leaves the choice to this function.
        obstacle (str, optional): Why Triton cannot run, None where it can; see :func:`why_no_triton`.
        first_contact (Callable): Called where Triton would run on a GPU; gives what is wrong with its kernels there, or
            None; see :mod:`vik_mm.ops.first_contact`.

    Returns:
        Backend: ``(name, reason)``.

    Raises:
        BadInputError: If ``backend`` is unknown.
        UnavailableError: If the backend asked for cannot run.
    """
    if backend is not None and backend not in NAMES:
        raise BadInputError(f'backend={backend!r} is unknown; choose one of {list(NAMES)}, or None for the default')
    if _is_exporting:
        return Backend('reference', "the model is being exported: other runtimes know only PyTorch's operators")
    if obstacle is None and backend in (None, 'triton') and is_on_gpu(x):
        obstacle = first_contact()
    if backend is None:
        if not is_on_gpu(x):
            return Backend('chunked', 'the default on a CPU')
        if obstacle is None:
            return Backend('triton', 'the default on CUDA')
        return Backend('chunked', f'runs everywhere; triton does not: {obstacle}')
    if backend == 'triton' and obstacle:
        raise UnavailableError(f"backend='triton' cannot run here: {obstacle}; backend=None takes one that can")
    return Backend(backend, 'asked for by name')


@contextmanager
def reference_operators() -> Iterator[None]:
    """Run all operators as 'reference', whatever they ask for: a trace of it holds only PyTorch's operators."""
    global _is_exporting
    before, _is_exporting = _is_exporting, True
    try:
        yield
    finally:
        _is_exporting = before


def is_on_gpu(x: Tensor) -> bool:
    """Tell whether Triton's kernels are the default for ``x``."""
    return x.is_cuda


def why_no_triton(x: Tensor) -> str | None:
    """Name what keeps Triton from running on ``x``, or give None."""
    dtype = autocast_dtype(x)
    if not HAS_TRITON:
        return f'Triton from {OLDEST_TRITON} on is not installed'
    if not x.is_cuda and not (x.device.type == 'cpu' and INTERPRETS_TRITON):
        return f'x is on {x.device}, the kernels need CUDA (or, for tests, TRITON_INTERPRET=1 on a CPU)'
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f'the kernels know float32, float16 and bfloat16, x is {dtype}'
    return None


def autocast_dtype(x: Tensor) -> torch.dtype:
    """Give the dtype in which autocast, where it is on, wants a matrix product of ``x``, else the dtype of ``x``."""
    if x.dtype != torch.float64 and _is_autocast(x):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def compute_dtype(x: Tensor) -> torch.dtype:
    """Give the dtype in which the backends for all devices compute: that of ``x``, float32 at least."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Keep autocast away from what an operator computes inside."""
    return torch.autocast(x.device.type, enabled=False) if _is_autocast(x) else nullcontext()


def _is_autocast(x: Tensor) -> bool:
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)  # tensors without values have no autocast


def is_traced() -> bool:
    """Tell whether a compiler or tracer is looking on, who must not see what depends on the sizes at hand."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def is_exported() -> bool:
    """Tell whether the model at hand is being written to a file, which cannot branch on the values of pixels."""
    is_exporting = getattr(torch.compiler, 'is_exporting', bool)  # from PyTorch 2.7 on
    return _is_exporting or torch.jit.is_tracing() or is_exporting()


def plain_or_operator(function: Callable, operator: Callable) -> Callable:
    """Choose between a function and the custom operator that wraps it.

    Autograd, compilers and tracers need the operator; without them the plain function saves tens of microseconds.
    """
    return operator if torch.is_grad_enabled() or is_traced() else function
