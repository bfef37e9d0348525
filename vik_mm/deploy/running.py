"""Loads exported files, and has models compute with them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from vik_mm.compat.registered_only import builds_registered_only
from vik_mm.compat.replacing import answer_with
from vik_mm.errors import BadInputError

from .formats import ENDINGS, READERS, check_torch, exported_format
from .parts import task_of


def load_exported(path: str | os.PathLike) -> tuple[Callable[[Tensor], list[Tensor]], dict[str, Any]]:
    """Load an exported file. ONNX is data; every other format is a program: load only those whose origin you trust.

    After :func:`vik_mm.config.read_safe_config`, programs are refused.

    Args:
        path (str | PathLike): A file of :func:`export`.

    Returns:
        tuple[Callable[[Tensor], list[Tensor]], dict[str, Any]]: A function of a batch, ``[B, H, W, 3]`` in uint8 or,
        with raw input, ``[B, 3, H, W]``, and what the file holds about itself.

    Raises:
        FileNotFoundError: If there is no such file.
        BadInputError: If it is damaged, no file of :func:`export`, or a program where only data may be loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'exported file {path} does not exist')
    format = exported_format(path)
    if format is None:
        raise BadInputError(f'{path} must end in one of {sorted(ENDINGS.values())}')
    if format != 'onnx':
        if builds_registered_only():
            raise BadInputError(
                f'{path} is a program ({format}), which --safe-config does not load; take a checkpoint or an ONNX '
                'file, or leave --safe-config out if you trust whoever made it'
            )
        check_torch(format)
    try:
        run, text = READERS[format](path)
        meta = json.loads(text)
    except ImportError as error:
        raise BadInputError(f'{path} needs a package: {error}; pip install vik_mm[export]') from error
    except Exception as error:  # each runtime has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(f'{path} cannot be loaded as {format}; export it again ({reason})') from error

    def checked(image: Tensor) -> list[Tensor]:
        if meta['input'] == 'image':
            if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[3] != 3 or 0 in image.shape:
                raise BadInputError(f'{path} takes images as {meta["layout"]}, got {image.dtype} {tuple(image.shape)}')
            return run(image)
        size, smallest, largest = tuple(image.shape[2:]), tuple(meta['min_size']), tuple(meta['max_size'])
        if any(not low <= side <= high for low, side, high in zip(smallest, size, largest)):
            sides = f'of {smallest}' if smallest == largest else f'from {smallest} to {largest}'
            raise BadInputError(f'{path} takes images {sides} pixels, got {size}; resize or pad them')
        return run(image)

    return checked, meta


def run_exported(model: Any, path: str | os.PathLike) -> dict[str, Any]:
    """Have a model compute with an exported file; boxes and label maps are made of its outputs as before.

    Args:
        model (nn.Module): Of the config that was exported; changed in place. Its weights are not used.
        path (str | PathLike): An exported 'model' with raw input.

    Returns:
        dict[str, Any]: What the file holds about itself.

    Raises:
        BadInputError: If the file prepares images itself, holds only a backbone, or a model of another task.
    """
    if exported_format(path) != 'onnx':
        print_log(f'{path} is a program, which runs with all that you may do here', logger='current')
    run, meta = load_exported(path)
    task = task_of(model)
    if meta['part'] != 'model' or meta['task'] != task:
        raise BadInputError(f'{path} holds a {meta["part"]} for {meta["task"]}; this needs a model for {task}')
    if meta['input'] != 'normalised':
        raise BadInputError(
            f'{path} prepares images itself; run it by tools/deploy/run_onnx.py, or export with --raw-input for tools '
            'that prepare them as the config says'
        )
    answer_with(model, task, run, meta['lengths'])
    return meta
