"""Compilation of the backbone, for all image sizes at once."""

import importlib.util
import os
import shutil

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from vik_mm.compat.replacing import keep_equal_sizes_apart, keep_graphs_whole
from vik_mm.errors import BadInputError


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile the model's backbone with ``torch.compile`` when a run starts.

    Only the backbone, since necks and heads of detectors branch on what they find in an image. Sizes are variables of
    the graph: one graph serves every image size, so that multi-scale training and testing at the images' own sizes
    compile once. Training and evaluation each have a graph, and so has a batch of one; on a CPU PyTorch's
    convolutions ask for another from a batch of 16 up. With several processes, the graph stays whole: the backbone's
    gradients are sent when its backward pass is done.

    Names in checkpoints stay as they are, and weights are read and written as without this hook.

    Args:
        backend (str): A backend of ``torch.compile``. Defaults to 'inductor'.

    Raises:
        BadInputError: When a run starts, if the model has no backbone, or the backend's compiler is not installed.
    """

    def __init__(self, backend: str = 'inductor'):
        self.backend = backend

    def before_run(self, runner):
        """Compile the backbone; the compiler itself runs at the first batch."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        backbone = getattr(model, 'backbone', None)
        if backbone is None:
            raise BadInputError(f'--compile compiles the backbone, and {type(model).__name__} has none')
        if self.backend == 'inductor' and (missing := _missing_compiler()):
            raise BadInputError(f'--compile: {missing}')
        keep_equal_sizes_apart()
        if is_model_wrapper(runner.model):
            keep_graphs_whole()
        backbone.compile(backend=self.backend, dynamic=True)
        print_log('the backbone will be compiled at the first batch, which takes minutes', logger='current')


def _missing_compiler() -> str | None:
    """Name what TorchInductor lacks on this machine, or give None."""
    if torch.cuda.is_available():
        if importlib.util.find_spec('triton') is None:
            return 'TorchInductor needs the package triton on a GPU; pip install triton'
        names = [os.environ.get('CC'), 'gcc', 'cc', 'clang']
    else:
        names = [os.environ.get('CXX', 'g++')]
    if not any(name and shutil.which(name) for name in names):
        return (
            'TorchInductor needs a C++ compiler; install g++, or name one in the environment variable CXX '
            '(CC for the C compiler that a GPU needs)'
        )
    return None
