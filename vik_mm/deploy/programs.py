"""PyTorch's exported programs of stages, and what every format shares."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from torch.utils._sympy.value_ranges import ValueRanges

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
        program = torch.export.export(stage.module, tuple(stage.example), dynamic_shapes=shapes, strict=False)
    _allow_small(program)
    return program


def _allow_small(program: torch.export.ExportedProgram) -> None:
    """Let a program take sizes at which a map has a single row, pixel or image.

    A tracer takes for granted that an axis that was longer than one stays so, and has programs refuse others: at 32
    pixels the last maps of ViK have one pixel. What is traced here computes the same with it, which the comparison at
    the smallest size makes sure of; the limits of a file are checked by :func:`vik_mm.deploy.load_exported`.
    """
    for symbol, bounds in program.range_constraints.items():
        program.range_constraints[symbol] = ValueRanges(min(bounds.lower, 1), bounds.upper)
