"""Mixed precision in bfloat16 without a GPU."""

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Train on the CPU in mixed precision: weights and their gradients in float32, matrix products in bfloat16.

    MMEngine's ``AmpOptimWrapper`` refuses to work without a GPU. Bfloat16 has float32's range, so that losses need no
    scaling. CPUs with instructions for it (AVX512-BF16, AMX) are the faster for it; others are slower.
    ``tools/train.py`` puts it in the place of ``AmpOptimWrapper`` with ``dtype='bfloat16'`` where there is no GPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Run the forward pass of a training step in mixed precision.

        Args:
            model (nn.Module): The model.
        """
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
