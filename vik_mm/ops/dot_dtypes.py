"""What the Triton kernels' matrix products take; imported by the kernels alone, which need Triton."""

import torch
import triton.language as tl

from .backends import INTERPRETS_TRITON

DOT_DTYPES = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    # Triton's interpreter, which the tests use, takes the bits of a bfloat16 product's operands for integers.
    torch.bfloat16: tl.float32 if INTERPRETS_TRITON else tl.bfloat16,
}
