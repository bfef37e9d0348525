"""Whether a config has the form that tools rely on, before they change anything in it."""

from typing import Any

from mmengine.config import Config

_SPLITS = ('train', 'val', 'test')
_DICTS = (
    'model',
    'optim_wrapper',
    'default_hooks',
    'env_cfg',
    'randomness',
    'auto_scale_lr',
    'strategy',
    *(f'{split}_{part}' for split in _SPLITS for part in ('dataloader', 'cfg')),
)


def check_form(cfg: Config) -> None:
    """Make sure that the parts of a config are dicts, or lists of dicts, where these are expected.

    Args:
        cfg (Config): The config, as it goes to the Runner.

    Raises:
        ValueError: If a part is something else; the message names it.
    """
    for name in _DICTS:
        _check_dict(name, cfg.get(name))
    for name, hook in (cfg.get('default_hooks') or {}).items():
        _check_dict(f'default_hooks.{name}', hook)
    if cfg.get('optim_wrapper') is not None:
        _check_dict('optim_wrapper.optimizer', cfg.optim_wrapper.get('optimizer'))
    hooks = cfg.get('custom_hooks')
    if not isinstance(hooks, (list, tuple, type(None))):
        raise ValueError(f'custom_hooks={hooks!r} must be a list of dicts')
    for number, hook in enumerate(hooks or []):
        _check_dict(f'custom_hooks[{number}]', hook, is_needed=True)
    for split in _SPLITS:
        evaluators = cfg.get(f'{split}_evaluator') or []
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            _check_dict(f'{split}_evaluator', evaluator, is_needed=True)
        if cfg.get(f'{split}_dataloader'):
            _check_dataset(f'{split}_dataloader.dataset', cfg[f'{split}_dataloader'].get('dataset'))


def _check_dataset(place: str, dataset: Any) -> None:
    _check_dict(place, dataset)
    # What wraps others, as RepeatDataset and ConcatDataset, has them under these keys.
    for key in ('dataset', 'datasets'):
        inner = (dataset or {}).get(key)
        for each in inner if isinstance(inner, (list, tuple)) else [inner]:
            if each is not None:
                _check_dataset(f'{place}.{key}', each)


def _check_dict(place: str, value: Any, is_needed: bool = False) -> None:
    if value is None and not is_needed:
        return
    if not isinstance(value, dict):
        raise ValueError(f'{place}={value!r} must be a dict')
    kind = value.get('type', '')
    if not isinstance(kind, str) and not callable(kind):
        raise ValueError(f'{place}.type={kind!r} must be the name of a class')
