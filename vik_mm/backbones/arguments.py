"""Checks of what users hand to a backbone: arguments of its constructor, and images."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vik_mm.errors import BadInputError, BadTypeError

MIN_IMAGE_SIZE = 32


def _is_number(value: Any, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _integers(value: Any) -> tuple[int, ...]:
    """Give several integers as a tuple, which is empty where there is anything else."""
    is_several = isinstance(value, Sequence) and not isinstance(value, str)
    return tuple(value) if is_several and all(_is_number(each, int) for each in value) else ()


def check_options(name: str, options: dict, allowed: Sequence[str]) -> dict:
    """Give a dict of options.

    Raises:
        BadTypeError: If it is no dict, or has an option that is not allowed.
    """
    if not isinstance(options, dict) or not set(options) <= set(allowed):
        raise BadTypeError(f'{name}={options!r} must be a dict with no other keys than {", ".join(allowed)}')
    return options


def check_configs(**configs: dict) -> None:
    """Refuse what a layer cannot be built from.

    Raises:
        BadTypeError: With the name of the first that is no dict with a type.
    """
    for name, cfg in configs.items():
        if not isinstance(cfg, dict) or 'type' not in cfg:
            raise BadTypeError(f'{name}={cfg!r} must be a dict with a type')


def check_arch(arch: str | dict, settings: dict[str, dict]) -> dict:
    """Give the settings of an arch.

    Args:
        arch (str | dict): A name among ``settings``, or such settings.
        settings (dict[str, dict]): By name.

    Returns:
        dict: A copy of the settings.

    Raises:
        TypeError: If ``arch`` is neither a name nor a dict with the same keys as the settings.
        ValueError: If the name is unknown.
    """
    keys = list(next(iter(settings.values())))
    form = f'dict({", ".join(f"{key}=..." for key in keys)})'
    if isinstance(arch, str):
        if arch not in settings:
            raise BadInputError(f'arch={arch!r} is unknown; choose one of {sorted(settings)} or give {form}')
        arch = settings[arch]
    elif not isinstance(arch, dict) or set(arch) != set(keys):
        raise BadTypeError(f'arch must be one of {sorted(settings)} or {form}, got {arch!r}')
    return dict(arch)


def check_stages(depths: Sequence[int], embed_dims: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Give blocks and channels of each stage as tuples.

    Raises:
        ValueError: If they are not equally many positive numbers.
    """
    blocks, channels = _integers(depths), _integers(embed_dims)
    if not blocks or len(blocks) != len(channels) or min(*blocks, *channels) < 1:
        raise BadInputError(
            f'depths and embed_dims must be equally many positive integers, got {depths!r} and {embed_dims!r}'
        )
    return blocks, channels


def check_one_for_each_stage(name: str, value: dict | Sequence[dict], num_stages: int) -> list[dict]:
    """Give a config for each stage, of one for all or one for each.

    Raises:
        ValueError: If there are more or fewer than stages.
    """
    if isinstance(value, dict) or not isinstance(value, Sequence):
        return [value] * num_stages
    if len(value) != num_stages:
        raise BadInputError(
            f'{name} lists {len(value)} mixers, and arch has {num_stages} stages; give one config for each stage, or '
            'one for all'
        )
    return list(value)


def check_img_size(img_size: int | Sequence[int]) -> tuple[int, int]:
    """Give height and width.

    Raises:
        ValueError: If there are not two of them, or one is less than :data:`MIN_IMAGE_SIZE`.
    """
    size = _integers([img_size, img_size] if isinstance(img_size, int) else img_size)
    if len(size) != 2 or min(size) < MIN_IMAGE_SIZE:
        raise BadInputError(
            f'img_size={img_size!r} must be one side or (height, width) in pixels, each at least {MIN_IMAGE_SIZE}'
        )
    return size[0], size[1]


def check_at_least(name: str, value: int, least: int) -> int:
    """Give an integer.

    Raises:
        ValueError: If it is none, or less than ``least``.
    """
    if not _is_number(value, int) or value < least:
        raise BadInputError(f'{name}={value!r} must be an integer of at least {least}')
    return value


def check_rates(**rates: float) -> None:
    """Refuse probabilities that are not in [0, 1).

    Raises:
        ValueError: With the name of the first.
    """
    for name, rate in rates.items():
        if not _is_number(rate) or not 0 <= rate < 1:
            raise BadInputError(f'{name}={rate!r} must be a number in [0, 1)')


def check_hidden_dims(mlp_ratio: float, embed_dims: Sequence[int]) -> None:
    """Refuse a ratio that leaves an MLP without hidden channels.

    Raises:
        ValueError: If it does.
    """
    # Written so that NaN is refused too.
    if not _is_number(mlp_ratio) or not 1 <= mlp_ratio * min(embed_dims) < math.inf:
        raise BadInputError(f'mlp_ratio={mlp_ratio!r} must be a positive number that gives each stage a hidden channel')


def check_layer_scale(value: float) -> None:
    """Refuse a start value of layer scale that makes no sense.

    Raises:
        ValueError: If it is negative or not finite.
    """
    if not _is_number(value) or not 0 <= value < math.inf:
        raise BadInputError(f'layer_scale_init_value={value!r} must be 0 (no layer scale) or a positive number')


def check_out_indices(out_indices: int | Sequence[int], count: int, rising: bool = False) -> tuple[int, ...]:
    """Give the indices of outputs, counted from the start.

    Args:
        out_indices (int | Sequence[int]): One or several; negative ones count from the end.
        count (int): Outputs that there are.
        rising (bool): Whether the order is fixed. Defaults to False.

    Returns:
        tuple[int, ...]: From 0 to ``count - 1``.

    Raises:
        ValueError: If there is none, one is out of range, one comes twice, or they do not rise where they must.
    """
    given = _integers([out_indices] if isinstance(out_indices, int) else out_indices)
    if not given or any(not -count <= i < count for i in given):
        raise BadInputError(
            f'out_indices={out_indices!r} must be integers from 0 to {count - 1}, or negative from the end'
        )
    indices = tuple(i % count for i in given)
    if len(set(indices)) < len(indices):
        raise BadInputError(f'out_indices={out_indices} names an output more than once')
    if rising and sorted(indices) != list(indices):
        raise BadInputError(f'out_indices={out_indices} must rise')
    return indices


def check_frozen_stages(frozen_stages: int, count: int) -> int:
    """Give the number of frozen stages.

    Raises:
        ValueError: If it is no integer from -1 to ``count``.
    """
    if not _is_number(frozen_stages, int) or not -1 <= frozen_stages <= count:
        raise BadInputError(
            f'frozen_stages={frozen_stages!r} must be an integer from -1 to {count}; -1 freezes nothing'
        )
    return frozen_stages


def check_images(x: Tensor, in_channels: int) -> None:
    """Refuse what is no batch of images that ViK takes.

    Args:
        x (Tensor): To be ``[B, in_channels, H, W]``, ``H`` and ``W`` at least :data:`MIN_IMAGE_SIZE`.
        in_channels (int): Channels.

    Raises:
        ValueError: If it is something else.
    """
    if x.ndim != 4 or x.shape[1] != in_channels:
        raise BadInputError(
            f'ViK takes images [B, {in_channels}, H, W], got {tuple(x.shape)}; in_channels sets the number of channels'
        )
    if x.shape[2] < MIN_IMAGE_SIZE or x.shape[3] < MIN_IMAGE_SIZE:
        raise BadInputError(
            f'ViK takes images from {MIN_IMAGE_SIZE}x{MIN_IMAGE_SIZE} pixels up, got {x.shape[2]}x{x.shape[3]}; '
            'resize or pad them'
        )
