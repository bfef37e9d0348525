"""Looks for the data sets of a config before anything is built, so that a missing one has a message of its own."""

from pathlib import Path

from mmengine.config import Config

# What a user has to lay down for each type of data set, relative to data_root.
LAYOUTS = {
    'ImageNet': 'train/<class>/*.JPEG and val/<class>/*.JPEG (or val/*.JPEG with meta/val.txt)',
    'CustomDataset': '<data_prefix>/<class>/<image>',
    'CIFAR10': 'cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}',
    'CIFAR10Subset': 'cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}',
    'CIFAR100': 'cifar-100-python/{train,test,meta}',
    'CocoDataset': 'annotations/instances_{train,val}2017.json, train2017/ and val2017/',
    'ADE20KDataset': 'images/{training,validation}/*.jpg and annotations/{training,validation}/*.png',
}
# Wrappers such as RepeatDataset and ConcatDataset keep what they wrap under these keys.
_WRAPPED = ('dataset', 'datasets')


def check_datasets(cfg: Config, splits: tuple[str, ...] = ('train', 'val', 'test')) -> None:
    """Make sure that every path that the config's data sets read from exists.

    Args:
        cfg (Config): The config, as it goes to the Runner.
        splits (tuple[str, ...]): Which data loaders to look at. Defaults to all three.

    Raises:
        FileNotFoundError: If a path is missing; the message names it, the layout that is expected, and what to do.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for dataset in _leaf_datasets(loader and loader.get('dataset')):
            for path in _paths(dataset):
                if not path.exists():
                    raise FileNotFoundError(_message(split, dataset, path))
        evaluators = cfg.get(f'{split}_evaluator') or []
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            path = evaluator.get('ann_file')
            if loader and isinstance(path, str) and '://' not in path and not Path(path).exists():
                raise FileNotFoundError(
                    f'{split}_evaluator.ann_file={path} does not exist; it must be the annotation file of the {split} '
                    f'data set: --cfg-options {split}_evaluator.ann_file=...'
                )


def describe_layouts(cfg: Config) -> str:
    """Say where and in which layout the config's data sets are expected.

    Args:
        cfg (Config): The config, as it goes to the Runner.

    Returns:
        str: One sentence for each root, or '' where no layout is known.
    """
    found = {}
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        for dataset in _leaf_datasets(loader and loader.get('dataset')):
            if layout := LAYOUTS.get(_type(dataset)):
                found[dataset.get('data_root') or '.'] = f'{_type(dataset)} expects {layout}'
    return '. '.join(f'Below {root}, {layout}' for root, layout in found.items())


def _leaf_datasets(dataset):
    if not dataset:
        return
    wrapped = [dataset[key] for key in _WRAPPED if dataset.get(key)]
    if not wrapped:
        yield dataset
    for inner in wrapped:
        for each in inner if isinstance(inner, (list, tuple)) else [inner]:
            yield from _leaf_datasets(each)


def _paths(dataset):
    """List the local paths of a data set, the root first. Addresses of other file systems are left to MMEngine."""
    root = str(dataset.get('data_root') or '')
    if '://' in root or root.startswith('s3:'):
        return
    if root and not _can_download(dataset):
        yield Path(root)
    prefix = dataset.get('data_prefix') or dataset.get('split') or {}
    if isinstance(prefix, dict):
        parts = list(prefix.values())
    else:
        # CIFAR's split is no folder; ImageNet's is one.
        parts = [prefix] if dataset.get('data_prefix') or _type(dataset) == 'ImageNet' else []
    parts.append(dataset.get('ann_file'))
    for part in parts:
        if isinstance(part, str) and part:
            yield Path(root, part)


def _can_download(dataset) -> bool:
    return _type(dataset) in ('CIFAR10', 'CIFAR100') and dataset.get('download', True)


def _type(dataset) -> str:
    kind = dataset.get('type', '')
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else kind.__name__


def _message(split: str, dataset, path: Path) -> str:
    kind, root = _type(dataset), dataset.get('data_root') or '.'
    layout = LAYOUTS.get(kind)
    expected = f'; {kind} expects, below {root}: {layout}' if layout else ''
    return (
        f'the {split} data set is not there: {path} does not exist{expected}. Put the data there, or point the config '
        f'to them with --cfg-options {split}_dataloader.dataset.data_root=...'
    )
