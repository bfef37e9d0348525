"""Which keys of a config the parts of a run read."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from mmengine import registry as registries
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import (
    EpochBasedTrainLoop,
    FlexibleRunner,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from mmengine.utils.dl_utils import set_multi_processing
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader

Path = tuple[str | int, ...]

_SPLITS = ('train', 'val', 'test')
# What MMEngine looks up in runner.cfg, beside its constructor's arguments.
_LOOKED_UP = (
    *('runner_type', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'compile'),
    *('activation_checkpointing', 'efficient_conv_bn_eval', 'init_weights_for_test_or_val'),
    'report',  # by tools/train.py
)
READ_AT_TOP = frozenset(
    {*inspect.signature(Runner).parameters, *inspect.signature(FlexibleRunner).parameters, *_LOOKED_UP}
    # The first is the config itself, the others are set by --launcher.
    - {'cfg', 'launcher'}
)
DEFAULT_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
# In every dict that something is built from, or that is merged into another.
_ALWAYS = ('type', '_scope_', '_delete_')
_SCOPES = ('mmpretrain', 'mmdet', 'mmseg')
# Where a class is looked for, by the key at the top of the config.
_REGISTRIES = {
    'model': ('MODELS', 'TASK_UTILS', 'WEIGHT_INITIALIZERS'),
    'data_preprocessor': ('MODELS',),
    'optim_wrapper': ('OPTIM_WRAPPERS', 'OPTIMIZERS'),
    'param_scheduler': ('PARAM_SCHEDULERS',),
    'default_hooks': ('HOOKS',),
    'custom_hooks': ('HOOKS',),
    'visualizer': ('VISUALIZERS', 'VISBACKENDS'),
    'log_processor': ('LOG_PROCESSORS',),
    'model_wrapper_cfg': ('MODEL_WRAPPERS',),
    'strategy': ('STRATEGIES', 'MODEL_WRAPPERS'),
    **{f'{split}_cfg': ('LOOPS',) for split in _SPLITS},
    **{f'{split}_dataloader': ('DATASETS', 'TRANSFORMS', 'DATA_SAMPLERS', 'FUNCTIONS') for split in _SPLITS},
    **{f'{split}_evaluator': ('METRICS', 'EVALUATOR') for split in _SPLITS},
}


@dataclass(frozen=True)
class Keys:
    """What is known of a dict's keys.

    Args:
        names (frozenset[str]): Keys that are read.
        is_open (bool): Whether others may be read too. Defaults to True.
        owner (str): The class that reads them, for messages. Defaults to ''.
    """

    names: frozenset[str] = frozenset()
    is_open: bool = True
    owner: str = ''

    def __or__(self, names) -> 'Keys':
        return Keys(self.names | set(names), self.is_open, self.owner)


def value_at(cfg: Mapping, path: Path) -> Any:
    """Look a value up in nested dicts and lists.

    Args:
        cfg (Mapping): The outermost dict.
        path (tuple): Keys, and indices as integers or digits.

    Returns:
        Any: The value, or None where there is none.
    """
    value: Any = cfg
    for key in path:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, (list, tuple)) and str(key).isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def known_keys(cfg: Mapping, path: Path, may_import: bool = True) -> Keys:
    """Find out which keys of a dict in a config are read.

    Args:
        cfg (Mapping): The whole config.
        path (tuple): Where the dict is, () for the config itself; it need not be there yet.
        may_import (bool): Whether to import an mm package's modules to find a class. Defaults to True.

    Returns:
        Keys: The keys; open where a class is not found, or may read whatever it is given.
    """
    if not path:
        return Keys(READ_AT_TOP, False)
    node = value_at(cfg, path)
    node = node if isinstance(node, Mapping) else {}
    find = _Finder(cfg, path, may_import)
    # Places in lists by the name of the list.
    place = '.'.join(str(key) for key in path if not str(key).isdigit())
    special = _SPECIAL.get(place) or (_SPECIAL_LAST.get(str(path[-1])) if len(path) > 1 else None)
    keys = special(node, find) if special else find(node.get('type'))
    return keys | _ALWAYS if 'type' in keys.names or 'type' in node or not keys.is_open else keys


class _Finder:
    """Looks for the class that a dict at this place is built as, and for its arguments."""

    def __init__(self, cfg: Mapping, path: Path, may_import: bool):
        self.cfg, self.path, self.may_import = cfg, path, may_import
        scope = cfg.get('default_scope')
        self.scope = scope if isinstance(scope, str) else None
        for end in range(len(path) + 1):
            node = value_at(cfg, path[:end])
            if isinstance(node, Mapping) and isinstance(node.get('_scope_'), str):
                self.scope = node['_scope_']

    def __call__(self, kind: Any, default: Callable | None = None, registry: str | None = None) -> Keys:
        if kind is None and default is None:
            return Keys()
        kinds = [default] if kind is None else self.find(kind, registry)
        if not kinds:
            return Keys(owner=str(kind))
        found = [_arguments(each) for each in kinds]
        names = frozenset().union(*(names for names, _ in found))
        return Keys(names, any(is_open for _, is_open in found), getattr(kinds[0], '__name__', str(kinds[0])))

    def find(self, kind: Any, registry: str | None = None) -> list[Callable]:
        """List what is registered by a name; never imports what the name says, as the registries themselves would."""
        if not isinstance(kind, str):
            return [kind] if callable(kind) else []
        prefix, _, name = kind.rpartition('.')
        scope = prefix or self.scope or ''
        if scope in _SCOPES and self.may_import:
            import_module(f'{scope}.registry')
        names = (registry,) if registry else _REGISTRIES.get(str(self.path[0]), ())
        return [found for root in names if (found := self._lookup(getattr(registries, root), scope, name))]

    def _lookup(self, root: Registry, scope: str, name: str) -> Callable | None:
        preferred = [each for each in (root.children.get(scope), root) if each is not None]
        for each in preferred:
            if self.may_import:
                each.import_from_location()
            if name in each.module_dict:
                return each.module_dict[name]
        # A class of one package builds its parts from that package's registry.
        return next((each.module_dict[name] for each in root.children.values() if name in each.module_dict), None)


@cache
def _arguments(kind: Callable) -> tuple[frozenset[str], bool]:
    """List a callable's arguments, and whether there may be others."""
    names: set[str] = set()
    for function in _constructors(kind):
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # written in C
            return frozenset(names), True
        if inspect.isclass(kind):
            parameters = parameters[1:]  # self
        names |= {each.name for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}
        rest = next((each.name for each in parameters if each.kind == each.VAR_KEYWORD), None)
        if rest is None:
            return frozenset(names), False
        use = _use_of(function, rest)
        if use != 'handed to the base':
            return frozenset(names), use != 'none'
    return frozenset(names), not inspect.isclass(kind)


def _constructors(kind: Callable) -> Iterator[Callable]:
    if not inspect.isclass(kind):
        yield kind
        return
    for base in kind.__mro__[:-1]:  # the last is object
        if '__init__' in vars(base):
            yield vars(base)['__init__']


def _use_of(function: Callable, name: str) -> str:
    """Say what a function does with its ``**name``: 'none', 'handed to the base', or 'unknown'."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return 'unknown'
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    handed = [
        keyword.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == '__init__'
        if isinstance(call.func.value, ast.Call) and getattr(call.func.value.func, 'id', None) == 'super'
        for keyword in call.keywords
        if keyword.arg is None
    ]
    if not uses:
        return 'none'
    return 'handed to the base' if all(use in handed for use in uses) else 'unknown'


def _loop(kind: Any, default: Callable, find: _Finder) -> Keys:
    keys = find(kind, default)
    # What the Runner gives a loop.
    return Keys(keys.names - {'runner', 'dataloader', 'evaluator'}, keys.is_open, keys.owner)


def _train_cfg(node: Mapping, find: _Finder) -> Keys:
    by_epoch = node.get('by_epoch') in (True, None)
    return _loop(node.get('type'), EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop, find) | {'by_epoch'}


def _dataloader(_: Mapping, find: _Finder) -> Keys:
    return find(None, DataLoader) | {'num_batch_per_epoch', 'disable_subprocess_warning'}


def _optim_wrapper(node: Mapping, find: _Finder) -> Keys:
    keys = find(node.get('type'), OptimWrapper) | {'optimizer', 'constructor', 'paramwise_cfg'}
    constructor = _constructor(node, find)
    # Others may build several optimizers from names of their own.
    is_known = constructor is not None and issubclass(constructor, DefaultOptimWrapperConstructor)
    return Keys(keys.names, keys.is_open or not is_known, keys.owner)


def _paramwise_cfg(_: Mapping, find: _Finder) -> Keys:
    constructor = _constructor(value_at(find.cfg, find.path[:-1]) or {}, find)
    if constructor is None:
        return Keys()
    names = set()
    for base in constructor.__mro__[:-1]:
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):
            return Keys()
        names |= set(re.findall(r"paramwise_cfg(?:\.(?:get|pop|setdefault)\(|\[)\s*['\"](\w+)", source))
    return Keys(frozenset(names), False, constructor.__name__)


def _constructor(wrapper: Mapping, find: _Finder) -> type | None:
    name = wrapper.get('constructor') if isinstance(wrapper, Mapping) else None
    if name is None:
        return DefaultOptimWrapperConstructor
    found = find.find(name, 'OPTIM_WRAPPER_CONSTRUCTORS')
    return found[0] if found and inspect.isclass(found[0]) else None


def _data_preprocessor(node: Mapping, find: _Finder) -> Keys:
    # MMPretrain's models have a default; others need a type.
    return find(node.get('type') or ('ClsDataPreprocessor' if find.scope == 'mmpretrain' else None), registry='MODELS')


def _scheduler(node: Mapping, find: _Finder) -> Keys:
    return find(node.get('type')) | {'convert_to_iter_based'}


def _open(node: Mapping, find: _Finder) -> Keys:
    """Dicts that builders take things out of before they build: ``norm_cfg.requires_grad``, ``init_cfg.override``."""
    return Keys(find(node.get('type')).names | set(_ALWAYS))


def _fixed(*names: str, is_open: bool = False) -> Callable:
    return lambda node, find: Keys(frozenset(names), is_open)


_SPECIAL = {
    'train_cfg': _train_cfg,
    'val_cfg': lambda node, find: _loop(node.get('type'), ValLoop, find),
    'test_cfg': lambda node, find: _loop(node.get('type'), TestLoop, find),
    **{f'{split}_dataloader': _dataloader for split in _SPLITS},
    'optim_wrapper': _optim_wrapper,
    'optim_wrapper.paramwise_cfg': _paramwise_cfg,
    'param_scheduler': _scheduler,
    'default_hooks': _fixed(*DEFAULT_HOOKS),
    'env_cfg': _fixed('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    'env_cfg.mp_cfg': _fixed(*set(inspect.signature(set_multi_processing).parameters) - {'distributed'}),
    'env_cfg.dist_cfg': _fixed('backend', 'init_backend', 'timeout', is_open=True),
    'randomness': _fixed(*set(inspect.signature(Runner.set_randomness).parameters) - {'self'}),
    'auto_scale_lr': _fixed('enable', 'base_batch_size'),
    'log_processor': lambda node, find: find(node.get('type'), LogProcessor),
    'visualizer': lambda node, find: find(node.get('type'), Visualizer),
    'compile': _fixed('target', *inspect.signature(torch.compile).parameters, is_open=True),
    'data_preprocessor': _data_preprocessor,
    'model.data_preprocessor': _data_preprocessor,
}
_SPECIAL_LAST = dict.fromkeys(
    ('norm_cfg', 'act_cfg', 'conv_cfg', 'upsample_cfg', 'padding_cfg', 'init_cfg', 'dcn'), _open
)
