"""Data sets inside data sets, as RepeatDataset and ConcatDataset have them, as configs and as they are built."""

from collections.abc import Iterator, Mapping
from typing import Any

# What data sets keep those under that they wrap, one or several.
_WRAPPED = ('dataset', 'datasets')


def nested_configs(dataset: Any, place: str = 'dataset') -> Iterator[tuple[str, Any]]:
    """Go through the config of a data set and of those within it, from outside in.

    Args:
        dataset (Any): The config. What is no mapping is given as it is: whoever checks a config's form sees it too.
        place (str): Where it stands. Defaults to 'dataset'.

    Yields:
        tuple[str, Any]: Where a data set stands, and its config.
    """
    yield place, dataset
    for key in _WRAPPED if isinstance(dataset, Mapping) else ():
        for each in _listed(dataset.get(key)):
            if each is not None:
                yield from nested_configs(each, f'{place}.{key}')


def innermost_configs(dataset: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Go through the configs of the data sets that wrap no other; None has none.

    Args:
        dataset (dict, optional): The config of a data set.

    Yields:
        dict[str, Any]: A config.
    """
    for _, each in nested_configs(dataset):
        if each and not any(each.get(key) for key in _WRAPPED):
            yield each


def innermost(dataset: Any) -> Iterator[Any]:
    """Go through the built data sets of MMEngine that wrap no other.

    Args:
        dataset (Any): A built data set; PyTorch's, which have nothing to be looked at, are left out.

    Yields:
        BaseDataset: A data set.
    """
    for key in reversed(_WRAPPED):
        if hasattr(dataset, key):
            for each in _listed(getattr(dataset, key)):
                yield from innermost(each)
            return
    if hasattr(dataset, 'full_init'):
        yield dataset


def _listed(inner: Any) -> list | tuple:
    return inner if isinstance(inner, (list, tuple)) else [inner]
