"""Weights of a paper's original code, put into a module of this project that computes the same."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vik_mm.errors import BadInputError

MAX_NAMES = 8  # that an error lists of each kind


def load_original(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str = '') -> None:
    """Fill a module from the state dict of the code that its paper came with.

    The module says how its names differ from the original's:

    - ``original_names``, a tuple of pairs: a regular expression over a name here, and what replaces it, as for
      :func:`re.sub`. The pairs are applied in turn to each name of the module's state dict and give the name in the
      original. A module without it has the original's names.
      A ``*`` in it stands for the numbers of layers that are one here: their tensors are joined along the first
      dimension, in the order of the numbers.
    - ``original_unused``, a tuple of regular expressions: whole names of the original that have no place here, such as
      tables that are computed. A module without it has a place for all.
    - ``from_original(name, value)``, a method that gets a name of the module's state dict and the original's tensor.
      It returns the tensor in the shape and order used here; a tensor of unknown shape it returns as it is. A module
      without it takes all tensors as they are.

    Dimensions of size 1 need no method: the weight of a linear layer fits that of a 1x1 convolution. A tensor of
    another size is left to the module's load hooks, which may resample it.

    Args:
        module (nn.Module): The module to fill, in place.
        state_dict (Mapping[str, Tensor]): The original's state dict.
        prefix (str): What precedes the part's names in the state dict of a whole network, such as
            ``'stages.0.blocks.0.attn.'``; other names are passed over. Defaults to ''.

    Raises:
        BadInputError: If a tensor is missing, unknown or of the wrong shape; the message names it. Missing and unknown
            ones are found before anything is loaded.
    """
    found = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    own = module.state_dict()
    originals = {name: original_name(module, name) for name in own}
    found = _join_layers(found, [name for name in originals.values() if '*' in name])
    unused = [re.compile(pattern) for pattern in getattr(module, 'original_unused', ())]
    missing = sorted(set(originals.values()) - set(found))
    unknown = sorted(
        name for name in set(found) - set(originals.values()) if not any(rule.fullmatch(name) for rule in unused)
    )
    if missing or unknown:
        raise _misfit(module, prefix, missing=missing, unknown=unknown)

    values, misshapen = {}, {}
    for name, value in own.items():
        values[name] = _in_shape(module, name, found[originals[name]], value)
        if values[name].shape != value.shape:
            given, wanted = tuple(found[originals[name]].shape), tuple(value.shape)
            misshapen[name] = f'{originals[name]} {list(given)}, {name} here is {list(wanted)}'
    try:
        module.load_state_dict(values)
    except RuntimeError as error:
        # Load hooks may have resampled some of the tensors that do not fit; torch names the others.
        wrong = [text for name, text in misshapen.items() if f'size mismatch for {name}:' in str(error)]
        if not wrong:
            raise
        raise _misfit(module, prefix, misshapen=wrong) from error


def original_name(module: nn.Module, name: str) -> str:
    """Give the name that a tensor has in the original code.

    Args:
        module (nn.Module): The module.
        name (str): A name of its state dict.

    Returns:
        str: The name, after all of ``module.original_names``.
    """
    for pattern, replacement in getattr(module, 'original_names', ()):
        name = re.sub(pattern, replacement, name)
    return name


def _join_layers(found: dict[str, Tensor], joined: list[str]) -> dict[str, Tensor]:
    """Replace the tensors of numbered layers by one under the name with ``*``; counters keep the first one's value."""
    for name in joined:
        pattern = re.compile(re.escape(name).replace(r'\*', r'(\d+)'))
        parts = {tuple(map(int, match.groups())): key for key in found if (match := pattern.fullmatch(key))}
        values = [found.pop(parts[numbers]) for numbers in sorted(parts)]
        if values:
            found[name] = torch.cat(values) if values[0].ndim else values[0]
    return found


def _in_shape(module: nn.Module, name: str, value: Tensor, own: Tensor) -> Tensor:
    convert = getattr(module, 'from_original', None)
    if convert is not None:
        value = convert(name, value)
    is_same = [side for side in value.shape if side != 1] == [side for side in own.shape if side != 1]
    return value.reshape(own.shape) if is_same else value


def _misfit(module: nn.Module, prefix: str, **kinds: list[str]) -> BadInputError:
    lists = [f'{kind}: {_shorten(names)}' for kind, names in kinds.items() if names]
    where = f' under the prefix {prefix!r}' if prefix else ''
    return BadInputError(
        f'the state dict{where} does not fit {type(module).__name__}. {"; ".join(lists)}. Give the state dict of this '
        "part of the original with the options that it was made with; prefix takes a part out of a whole network's"
    )


def _shorten(names: list[str]) -> str:
    more = [f'and {len(names) - MAX_NAMES} more'] if len(names) > MAX_NAMES else []
    return ', '.join([*names[:MAX_NAMES], *more])
