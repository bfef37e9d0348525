"""Reading checkpoints: as data, never as code, and with errors that say what is wrong."""

import argparse
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vik_mm.compat.checkpoints import runner_classes


def check_checkpoint_file(path: str | os.PathLike) -> None:
    """Make sure that a file is there and is a whole PyTorch checkpoint, without reading its weights.

    Args:
        path (str | PathLike): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    # torch.save writes a zip archive, whose table of contents is at its end. Files older than torch 1.6 are pickles.
    if not zipfile.is_zipfile(path):
        with path.open('rb') as file:
            is_old_format = file.read(1) == pickle.PROTO
        if not is_old_format:
            raise ValueError(
                f'checkpoint {path} ({path.stat().st_size} bytes) is truncated or no PyTorch checkpoint; '
                'copy or download it again'
            )


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint on the CPU without running anything that it holds.

    Args:
        path (str | PathLike): The file.

    Returns:
        dict[str, Any]: What ``torch.save`` was given.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, is no checkpoint, or holds objects other than data.
    """
    check_checkpoint_file(path)
    try:
        # timm stores the command line with its weights: plain data.
        with torch.serialization.safe_globals([argparse.Namespace, *runner_classes()]):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f'checkpoint {path} cannot be read as data: it is damaged, or holds objects other than tensors and plain '
            f'values, which are not loaded because loading them runs code ({str(error).splitlines()[0]})'
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f'checkpoint {path} holds a {type(checkpoint).__name__}, not a dict of weights')
    return checkpoint


def unwrap_state_dict(checkpoint: dict[str, Any], prefer_ema: bool = True) -> tuple[dict[str, Tensor], str | None]:
    """Find the weights in what a training script saved.

    Args:
        checkpoint (dict[str, Any]): Weights, bare or under ``state_dict_ema``, ``state_dict``, ``model_ema`` or
            ``model``; each name may begin with ``module.``, as ``DistributedDataParallel`` leaves it.
        prefer_ema (bool): Whether to take averaged weights where there are both. Defaults to True.

    Returns:
        tuple[dict[str, Tensor], str | None]: The weights, and the key that they were under.

    Raises:
        ValueError: If there are no weights.
    """
    keys = ['state_dict_ema', 'model_ema', 'state_dict', 'model']
    if not prefer_ema:
        keys = keys[2:] + keys[:2]
    key = next((k for k in keys if isinstance(checkpoint.get(k), dict)), None)
    weights = checkpoint if key is None else checkpoint[key]
    weights = {name.removeprefix('module.'): value for name, value in weights.items() if isinstance(value, Tensor)}
    if not weights:
        raise ValueError(f'there are no weights in this checkpoint; its keys are {sorted(map(str, checkpoint))[:8]}')
    return weights, key
