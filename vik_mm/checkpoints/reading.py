"""Reading checkpoints: as data, never as code, and with errors that say what is wrong."""

import argparse
import hashlib
import json
import os
import pickle
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner.checkpoint import load_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vik_mm.compat.configs_from_text import refuse_configs_from_text
from vik_mm.compat.disguised_programs import have_torch_load_refuse_programs, refuse_programs
from vik_mm.compat.replacing import read_checkpoints_with
from vik_mm.compat.runner_classes import runner_classes
from vik_mm.errors import BadInputError, BadTypeError

from .atomic_files import write_atomically
from .digests import find_damage, is_archive, sign_safetensors
from .misfit import describe_misfit

SAFETENSORS = '.safetensors'
_KEYS = 'The model and loaded state dict do not match'  # begins MMEngine's page
# What PyTorch's reader raises for bytes that are wrong, besides its own error.
_DAMAGE = (
    *(RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError),
    *(MemoryError, OverflowError),
)


def check_checkpoint_file(path: str | os.PathLike) -> None:
    """Make sure that a file is there and is a whole PyTorch checkpoint, without reading its weights.

    Args:
        path (str | PathLike): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        BadInputError: If the file is truncated, or no checkpoint.
    """
    path = local_file(path)
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    # torch.save writes a zip archive, whose table of contents is at its end. Files older than torch 1.6 are pickles.
    if path.suffix != SAFETENSORS and not is_archive(path):
        with path.open('rb') as file:
            is_old_format = file.read(1) == pickle.PROTO
        if not is_old_format:
            raise BadInputError(
                f'checkpoint {path} ({path.stat().st_size} bytes) is truncated or no PyTorch checkpoint; '
                'copy or download it again'
            )


def local_file(path: str | os.PathLike) -> Path:
    """Find a checkpoint; one at an address is downloaded once, to where PyTorch keeps its downloads.

    Args:
        path (str | PathLike): A file, or an address that begins with ``http://`` or ``https://``.

    Returns:
        Path: The file, which need not exist if it is no address.

    Raises:
        BadInputError: If the address is of another kind, or nothing can be downloaded from it.
    """
    address = os.fspath(path)
    if '://' not in str(address):
        return Path(path)
    if not str(address).startswith(('http://', 'https://')):
        raise BadInputError(f'checkpoint {address} must be a file, or an address that begins with https:// or http://')
    name = Path(urlparse(str(address)).path)
    # Other sites have files of the same name.
    digest = hashlib.sha256(str(address).encode()).hexdigest()[:12]
    file = Path(torch.hub.get_dir(), 'checkpoints', f'{name.stem}-{digest}{name.suffix}')
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(str(address), str(file), progress=False)
        except (OSError, ValueError) as error:  # ValueError: no address at all
            raise BadInputError(f'checkpoint {address} could not be downloaded ({error})') from error
    return file


def read_checkpoint(path: str | os.PathLike, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a checkpoint without running anything that it holds.

    Args:
        path (str | PathLike): The file, PyTorch's or ``.safetensors``, or its address; see :func:`local_file`.
        map_location (Any): Where PyTorch's tensors go, as ``torch.load`` takes it. Defaults to 'cpu'.

    Returns:
        dict[str, Any]: What ``torch.save`` was given; of a safetensors file ``state_dict`` and ``meta``.

    Raises:
        FileNotFoundError: If there is no such file.
        BadInputError: If the file is truncated or damaged, is no checkpoint, or holds objects other than data.
    """
    path = local_file(path)
    check_checkpoint_file(path)
    check_digest(path)
    try:
        if path.suffix == SAFETENSORS:
            checkpoint = _read_safetensors(path)
        else:
            refuse_programs(path)
            # timm stores the command line with its weights: plain data.
            with _allowed(argparse.Namespace, *runner_classes()):
                checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, *_DAMAGE) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInputError(
            f'checkpoint {path} cannot be read as data: it is damaged, or holds objects other than tensors and plain '
            f'values, which are not loaded because loading them runs code ({reason[0]})'
        ) from error
    if not isinstance(checkpoint, dict):
        raise BadInputError(f'checkpoint {path} holds a {type(checkpoint).__name__}, not a dict of weights')
    _check_sizes(path, checkpoint)
    return checkpoint


def _allowed(*kinds) -> AbstractContextManager:
    """Let ``torch.load`` make these meanwhile; PyTorch would forbid afterwards what was allowed before, too."""
    allowed = set(torch.serialization.get_safe_globals())
    return torch.serialization.safe_globals([kind for kind in kinds if kind not in allowed])


def check_digest(path: str | os.PathLike) -> None:
    """Make sure that not a bit of a checkpoint has changed since it was written.

    Args:
        path (str | PathLike): The file. What has no digest and no checksums passes; see ``vik_mm.checkpoints.digests``.

    Raises:
        BadInputError: If a bit has changed.
    """
    if damage := find_damage(path):
        raise BadInputError(
            f'checkpoint {path} is damaged: {damage}; it has changed since it was written. Copy or download it again, '
            'or take another'
        )


def read_meta(path: str | os.PathLike) -> dict[str, Any]:
    """Read what a Runner's checkpoint says of itself, without reading its weights.

    Args:
        path (str | PathLike): A file that ``torch.save`` wrote.

    Returns:
        dict[str, Any]: Its ``meta``; empty where it has none, cannot be read, or cannot be resumed from.
    """
    try:
        with _allowed(*runner_classes()):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        meta, is_whole = checkpoint['meta'], 'message_hub' in checkpoint
        return meta if is_whole and isinstance(meta['epoch'], int) and isinstance(meta['iter'], int) else {}
    except (pickle.UnpicklingError, *_DAMAGE):
        return {}


def _check_sizes(path: Path, checkpoint: dict[str, Any]) -> None:
    """Refuse tensors that stand for far more numbers than the file holds: whoever copies them runs out of memory."""
    for entry in (checkpoint, *checkpoint.values()):
        for name, value in entry.items() if isinstance(entry, dict) else ():
            if isinstance(value, Tensor) and value.layout is torch.strided:
                size, held = value.numel() * value.element_size(), value.untyped_storage().nbytes()
                if size > max(2**30, 8 * held):
                    raise BadInputError(
                        f'checkpoint {path}: {name} would have {size} bytes, of which the file holds {held}; '
                        'it is damaged, or made to exhaust the memory'
                    )


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load weights, all of them or none.

    Args:
        model (nn.Module): Changed in place.
        weights (dict[str, Tensor]): By name; what is missing, too many, or of another shape is an error.

    Raises:
        BadInputError: If they do not fit; the model is as it was.
    """
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    reason = None
    try:
        load_state_dict(model, weights, strict=True)
    except _DAMAGE as error:
        # A model's own words, of another arch say, are better than a page of keys.
        reason = describe_misfit(model, weights) if _KEYS in str(error) else None
        reason = reason or ' '.join(str(error).split())[:600]
    else:
        # MMEngine looks for missing weights in the first process only; the others must not go on without it.
        reason = describe_misfit(model, weights)
    if reason:
        with torch.no_grad():
            for name, value in model.state_dict().items():
                value.copy_(before[name])
        raise BadInputError(reason)


def load_runner_weights(runner, path: str | os.PathLike) -> None:
    """Load a checkpoint into a Runner's model, with what its hooks do to it, all of the weights or none.

    Args:
        runner (Runner): Its model is changed in place.
        path (str | PathLike): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        BadInputError: If the file cannot be read or does not fit; in all processes.
    """
    checkpoint = read_checkpoint(path)
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    weights = checkpoint.get('state_dict', checkpoint)
    load_weights(model, {name.removeprefix('module.'): value for name, value in weights.items()})


def load_checkpoints_as_data() -> None:
    """Have all of this process read checkpoints as data: MMEngine's Runner and models too, resuming included.

    Files go through :func:`read_checkpoint`; whatever else calls ``torch.load``, for downloads say, is held to
    ``weights_only=True``. Before PyTorch 2.6 that is not enough: ``torch.load`` is replaced by one that refuses
    programs.
    Configs in Python that stand in checkpoints are refused too (``Config.fromstring``).
    """
    refuse_configs_from_text()
    have_torch_load_refuse_programs()
    read_checkpoints_with(load_from_local, runner_classes())


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a file for MMEngine, whose log takes the name of the place from this function's."""
    return read_checkpoint(os.path.expanduser(filename), map_location or 'cpu')


def write_safetensors(weights: dict[str, Tensor], meta: dict[str, Any], path: str | os.PathLike) -> None:
    """Write weights as a safetensors file, which can hold nothing but tensors and text.

    Args:
        weights (dict[str, Tensor]): By name.
        meta (dict[str, Any]): Of numbers, strings, lists and dicts; a checkpoint's ``meta`` when read again.
        path (str | PathLike): The file, ending in ``.safetensors``.
    """
    # Weights under two names are written twice: the format knows no sharing.
    weights = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    metadata = dict(meta=json.dumps(meta), writer='vik_mm')
    write_atomically(sign_safetensors(metadata, lambda signed: save(weights, metadata=signed)), path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, 'pt') as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        meta = json.loads((file.metadata() or {}).get('meta', '{}'))
    if not isinstance(meta, dict) or not isinstance(meta.get('dataset_meta') or {}, dict):
        raise BadTypeError(f'its metadata must be a dict, with a dict as dataset_meta, and is {str(meta)[:80]}')
    return dict(state_dict=weights, meta=meta)


def unwrap_state_dict(checkpoint: dict[str, Any], prefer_ema: bool = True) -> tuple[dict[str, Tensor], str | None]:
    """Find the weights in what a training script saved.

    Args:
        checkpoint (dict[str, Any]): Weights, bare or under ``state_dict_ema``, ``state_dict``, ``model_ema`` or
            ``model``; each name may begin with ``module.``, as ``DistributedDataParallel`` leaves it.
        prefer_ema (bool): Whether to take averaged weights where there are both. Defaults to True.

    Returns:
        tuple[dict[str, Tensor], str | None]: The weights, and the key that they were under.

    Raises:
        BadInputError: If there are no weights.
    """
    keys = ['state_dict_ema', 'model_ema', 'state_dict', 'model']
    if not prefer_ema:
        keys = keys[2:] + keys[:2]
    key = next((k for k in keys if isinstance(checkpoint.get(k), dict)), None)
    weights = checkpoint if key is None else checkpoint[key]
    weights = {name.removeprefix('module.'): value for name, value in weights.items() if isinstance(value, Tensor)}
    if not weights:
        raise BadInputError(f'there are no weights in this checkpoint; its keys are {sorted(map(str, checkpoint))[:8]}')
    return weights, key
