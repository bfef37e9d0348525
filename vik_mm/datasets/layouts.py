"""Looks for the data sets of a config before anything is built, so that a missing one has a message of its own."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

from mmengine.config import Config

from vik_mm.datasets.coco_file import CocoFile, explain_unreadable
from vik_mm.datasets.nesting import innermost_configs
from vik_mm.datasets.wording import enumerate_some
from vik_mm.errors import BadInputError

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
# What MMPretrain's data sets of folders read, and those of them that have a fixed number of classes.
_ENDINGS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
_FOLDERS = {'CustomDataset': None, 'ImageNet': 1000}


def check_datasets(cfg: Config, splits: tuple[str, ...] = ('train', 'val', 'test')) -> None:
    """Make sure that every path that the config's data sets read from exists, and that folders of images hold some.

    Args:
        cfg (Config): The config, as it goes to the Runner.
        splits (tuple[str, ...]): Which data loaders to look at. Defaults to all three.

    Raises:
        FileNotFoundError: If a path is missing; the message names it, the layout that is expected, and what to do.
        BadInputError: If a folder has no images, or not the folders of classes that are expected; or if the annotations
            of an evaluator lack images of the data set, or have another order of classes.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for dataset in innermost_configs(loader and loader.get('dataset')):
            for path in _paths(dataset):
                if not path.exists():
                    raise FileNotFoundError(_message(split, dataset, path))
            _check_folders(dataset)
        evaluators = cfg.get(f'{split}_evaluator') or []
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            path = evaluator.get('ann_file')
            if loader and isinstance(path, str) and '://' not in path and not Path(path).exists():
                raise FileNotFoundError(
                    f'{split}_evaluator.ann_file={path} does not exist; it must be the annotation file of the {split} '
                    f'data set: --cfg-options {split}_evaluator.ann_file=...'
                )
            if loader and isinstance(path, str) and '://' not in path:
                _check_evaluator(split, path, list(innermost_configs(loader.get('dataset'))))


@contextlib.contextmanager
def explain_failed_downloads(cfg: Config) -> Iterator[None]:
    """Say where the data belong when they could not be downloaded, as CIFAR is where it is missing.

    Args:
        cfg (Config): The config, as it goes to the Runner.

    Raises:
        BadInputError: In place of ``URLError``.
    """
    try:
        yield
    except URLError as error:
        raise BadInputError(f'the data could not be downloaded ({error.reason}). {_describe_layouts(cfg)}') from error


def _describe_layouts(cfg: Config) -> str:
    """Say where and in which layout the config's data sets are expected; '' where no layout is known."""
    found = {}
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        for dataset in innermost_configs(loader and loader.get('dataset')):
            if layout := LAYOUTS.get(_type(dataset)):
                found[dataset.get('data_root') or '.'] = f'{_type(dataset)} expects {layout}'
    return '. '.join(f'Below {root}, {layout}' for root, layout in found.items())


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


def _check_folders(dataset) -> None:
    """Look into the folder of a data set that takes the classes from the names of folders."""
    if _type(dataset) not in _FOLDERS:
        return
    for key in ('data_root', 'ann_file'):
        if not isinstance(dataset.get(key) or '', str):
            raise BadInputError(f'{key}={dataset[key]!r} of {_type(dataset)} must be a path')
    prefix = dataset.get('data_prefix') or (dataset.get('split') if _type(dataset) == 'ImageNet' else '') or ''
    folder = prefix.get('img_path') or '' if isinstance(prefix, dict) else prefix
    if not isinstance(folder, str):
        raise BadInputError(f'data_prefix={prefix!r} of {_type(dataset)} must be a folder, or dict(img_path=folder)')
    root = Path(dataset.get('data_root') or '', folder)
    # ImageNet's test set has no labels; the others may have theirs in a file.
    list_of_images = Path(dataset.get('data_root') or '', dataset.get('ann_file') or f'meta/{dataset.get("split")}.txt')
    has_folders = dataset.get('with_label', True) and dataset.get('split') != 'test' and not list_of_images.is_file()
    if not has_folders or not root.is_dir():
        return
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    if not classes:
        raise BadInputError(
            f'{root} holds no folders; {_type(dataset)} takes the class of an image from its folder, so it must be '
            f'{root}/<class>/<image>, or name the images and their classes in ann_file'
        )
    endings = tuple(ending.lower() for ending in dataset.get('extensions') or _ENDINGS)
    others: Counter = Counter()
    for _, _, names in os.walk(root, followlinks=True):
        names = [name for name in names if not name.startswith('.')]  # as MMEngine has it
        if any(name.lower().endswith(endings) for name in names):
            break
        others.update(os.path.splitext(name)[1].lower() or 'without ending' for name in names)
    else:
        there = ', '.join(f'{count:,} {ending}' for ending, count in others.most_common(5)) or 'no files'
        raise BadInputError(
            f'{root} holds no image with one of the endings {", ".join(endings)}; there are {there}: convert them, or '
            'set extensions in the data set'
        )
    names = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes')
    expected = len(names) if isinstance(names, (list, tuple)) else _FOLDERS[_type(dataset)]
    if expected not in (None, len(classes)):
        raise BadInputError(
            f'{root} holds the folders of {len(classes)} classes ({enumerate_some(classes)}), and the data set has '
            f'{expected}; set metainfo=dict(classes=...) to their names and num_classes={len(classes)} in the head, or '
            'use CustomDataset, which takes the names of the folders'
        )


def _check_evaluator(split: str, path: str, datasets: list) -> None:
    """Look whether the annotations that results are compared with are those of the data set."""
    parts = [(dataset.get('data_root') or '', dataset.get('ann_file') or '') for dataset in datasets]
    own = [os.path.join(*each) for each in parts if all(isinstance(part, str) for part in each)]
    if len(own) != 1 or not os.path.isfile(own[0]) or os.path.samefile(own[0], path):
        return
    try:
        ours = CocoFile(json.loads(Path(own[0]).read_bytes()), own[0])
    except (ValueError, RecursionError):
        return  # of another format, or named when the data set reads it
    try:
        theirs = CocoFile(json.loads(Path(path).read_bytes()), path)
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, BadInputError) else explain_unreadable(path, error) from error
    remedy = f'set {split}_evaluator.ann_file={own[0]}'
    if missing := set(ours.image_ids) - set(theirs.image_ids):
        raise BadInputError(
            f'{split}_evaluator.ann_file={path} lacks {len(missing):,} of the {len(ours.image_ids):,} images of the '
            f'data set ({own[0]}), image {sorted(missing, key=str)[0]} for one: {remedy}'
        )
    if ours.names != theirs.names:
        raise BadInputError(
            f'{split}_evaluator.ann_file={path} has the categories {enumerate_some(theirs.names)}, and the data set '
            f'({own[0]}) has {enumerate_some(ours.names)}; labels are numbered in that order: {remedy}'
        )


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
