"""Parts of a block that a config chooses by name: token mixers and channel MLPs."""

import inspect
from typing import Any

from mmpretrain.registry import MODELS
from torch import nn

from vik_mm.errors import BadInputError, BadTypeError


def build_part(cfg: dict, argument: str, part: str, base: type[nn.Module], example: str, **given: Any) -> nn.Module:
    """Build a part from its config, whatever package the surrounding config belongs to.

    Args:
        cfg (dict): ``type``, a name in MMPretrain's registry or a class, and the part's own options.
        argument (str): The argument that ``cfg`` was given for, for messages.
        part (str): What the part is called, for messages.
        base (type[nn.Module]): The class that the known types derive from.
        example (str): A type, for messages.
        **given: Arguments that the block hands to every such part.

    Returns:
        nn.Module: The part.

    Raises:
        BadTypeError: If ``cfg`` is no dict with a ``type``, or has an option that the type does not know.
        BadInputError: If the type is not registered or is another kind of part, or the part refuses a value.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise BadTypeError(
            f'{argument} must be a dict with a type, such as dict(type={example!r}), got {cfg!r}; an option '
            f'without a type does not change the default {part}: name its type beside the option'
        )
    options = dict(cfg)
    kind = options.pop('type')
    chosen = MODELS.get(kind) if isinstance(kind, str) else kind
    if chosen is None:
        raise BadInputError(f'{part} {kind!r} is unknown; registered are {_known(base)}')
    parameters = inspect.signature(chosen).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if not takes_any and (lacking := sorted(set(given) - set(parameters))):
        raise BadInputError(f'{kind!r} is no {part}: it does not take {lacking}; registered are {_known(base)}')
    allowed = set(parameters) - set(given)
    if not takes_any and (unknown := sorted(set(options) - allowed)):
        raise BadTypeError(
            f'{part} {kind!r} has no option {unknown}; it takes {sorted(allowed)}. '
            f'A config that replaces an inherited {part} needs _delete_=True in the new {argument}'
        )
    return chosen(**given, **options)


def _known(base: type[nn.Module]) -> list[str]:
    return sorted(name for name, item in MODELS.module_dict.items() if inspect.isclass(item) and issubclass(item, base))
