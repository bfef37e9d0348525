"""What the Triton kernels of all operators share: the chip, a launch as data, cheap arithmetic; only they import it.

A launch is made by one function for each kernel, from tensors and a chip. The operators run it. The tests and
``tools/analysis_tools/kernel_resources.py`` compile the same launch for chips that are not there.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .backends import INTERPRETS_TRITON

# Triton's interpreter, which the tests use, takes the bits of a bfloat16 product's operands for integers.
_DOT_OF_BFLOAT16 = torch.float32 if INTERPRETS_TRITON else torch.bfloat16
_TRITON_DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


class Chip(NamedTuple):
    """What the launch settings depend on."""

    capability: int  # major and minor compute capability as one number, 0 under the interpreter
    processors: int


class Launch(NamedTuple):
    """A kernel with all that a launch of it takes."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    num_warps: int
    num_stages: int

    def run(self) -> None:
        """Start the kernel."""
        options = dict(num_warps=self.num_warps, num_stages=self.num_stages)
        self.kernel[self.grid](**self.arguments, **self.constants, **options)


@cache
def _chip(device: torch.device) -> Chip:
    properties = torch.cuda.get_device_properties(device)
    return Chip(10 * properties.major + properties.minor, properties.multi_processor_count)


def chip_of(x: Tensor) -> Chip:
    """Give the chip that holds ``x``; on a CPU, for the interpreter, one so small that programs have several tiles."""
    return _chip(x.device) if x.is_cuda else Chip(0, 1)


def dot_dtype(x: Tensor) -> torch.dtype:
    """Give the dtype of the operands of matrix products."""
    return _DOT_OF_BFLOAT16 if x.dtype == torch.bfloat16 else x.dtype


def dot_constants(x: Tensor) -> dict[str, Any]:
    """Give the compile-time arguments about matrix products."""
    dtype = dot_dtype(x)
    allows_tf32 = torch.backends.cuda.matmul.allow_tf32 and not torch.version.hip
    return dict(DOT=_TRITON_DTYPES[dtype], PRECISION='tf32' if dtype != torch.float32 or allows_tf32 else 'ieee')


def uses_matrix_units(chip: Chip, constants: dict[str, Any]) -> bool:
    """Tell whether products run on matrix units; without them, operands take registers instead of shared memory.

    Exact products of float32 do not, and Triton compiles none for chips before compute capability 8.0.
    """
    return constants['PRECISION'] != 'ieee' and chip.capability >= 80


def reciprocal(divisor: int) -> tuple[int, int]:
    """Prepare a division for :func:`quotient`.

    Args:
        divisor (int): From 1 to 2 ** 31 - 1.

    Returns:
        tuple[int, int]: Multiplier, as a signed number of 32 bits, and shift.
    """
    shift = (divisor - 1).bit_length()
    return -(-(1 << (31 + shift)) // divisor) - (1 << 32), shift


@triton.jit
def quotient(n, multiplier, shift):
    """Divide ``n``, from 0 to 2 ** 31 - 1, in three instructions instead of some thirty; exact."""
    high = tl.umulhi(2 * n.to(tl.uint32), multiplier.to(tl.uint32))
    return (high >> shift.to(tl.uint32)).to(tl.int32)


@triton.jit
def sigmoid(x):
    """Without a division, which takes a dozen instructions."""
    root = tl.rsqrt(1 + tl.exp2(x * -1.4426950408889634))
    return root * root
