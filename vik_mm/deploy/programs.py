"""PyTorch's exported programs of stages, and what every format shares."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log

from .forms import Stage

# Where a file holds what it says about itself.
META = 'vik_mm.json'


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say in the log what begins now, and how long it took."""
    print_log(f'export: {what} ...', logger='current')
    start = time.monotonic()
    yield
    print_log(f'export: ... took {time.monotonic() - start:.1f} s', logger='current')


def program_of(stage: Stage) -> torch.export.ExportedProgram:
    """Trace a stage for every length of its axes."""
    dim = torch.export.Dim

    def dynamic(axes: Any) -> Any:
        if isinstance(axes, list):
            return [dynamic(each) for each in axes]
        return {k: dim.DYNAMIC(max=stage.limits[k]) if k in stage.limits else dim.DYNAMIC for k in axes}

    shapes = tuple(dynamic(axes) for axes in stage.axes)
    with step(f'tracing what makes {stage.outputs[0]} of {stage.inputs[-1]}, for any size'):
        return torch.export.export(stage.module, tuple(stage.example), dynamic_shapes=shapes, strict=False)
