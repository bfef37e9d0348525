"""Brings a user's folder into the form that the mm packages read, once, beside nothing of the user's."""

import io
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vik_mm.datasets.coco_file import CocoFile
from vik_mm.errors import BadInputError
from vik_mm_cli.files import UNFINISHED, write_atomically

from .class_files import read_text
from .images import NUM_THREADS
from .listing import Listing
from .looking import FoundData, look, open_folder
from .mask_files import fit, read_mask
from .notes import Notes
from .prepared import PreparedData, PreparedSplit
from .samples import Sample

# Another number has folders converted again that an older version has converted.
_VERSION = 1
_RECORD = 'prepared.json'
_MAPS = 'label_maps'


def prepare(
    folder: str | os.PathLike,
    cache: str | os.PathLike | None = None,
    *,
    format: str | None = None,
    task: str | None = None,
    class_file: str | os.PathLike | None = None,
    val_share: float = 0.2,
    seed: int = 0,
) -> PreparedData:
    """Bring a folder into the form that the mm packages' own data sets read.

    What is written goes into a folder of the cache that is named by a digest of the state of the user's folder and of
    the options, and appears there whole or not at all. Unchanged data are not read again. ``splits.json`` in it says
    which image is in which split. Nothing is written into the user's folder.

    Args:
        folder (str | PathLike): The user's folder.
        cache (str | PathLike, optional): Where to write; None for ``work_dirs/<folder name>/data``. Defaults to None.
        format (str, optional): See :func:`look`. Defaults to None.
        task (str, optional): See :func:`look`. Defaults to None.
        class_file (str | PathLike, optional): See :func:`look`. Defaults to None.
        val_share (float): See :func:`look`. Defaults to 0.2.
        seed (int): See :func:`look`. Defaults to 0.

    Returns:
        PreparedData: What stands ready.

    Raises:
        FileNotFoundError: If the folder or the class file does not exist.
        BadInputError: As :func:`look` does, and if the cache lies in the user's folder.
    """
    listing = open_folder(folder, Notes(), format, task, class_file, val_share)
    cache = Path(cache if cache is not None else Path('work_dirs', listing.root.name, 'data')).expanduser().resolve()
    if cache == listing.root or listing.root in cache.parents:
        raise BadInputError(
            f'{cache} lies in the folder of the data, {listing.root}, into which nothing is written; start from '
            'another folder, or name another place for the results'
        )
    settings = dict(
        version=_VERSION,
        format=format,
        task=task,
        classes=read_text(Path(class_file).expanduser()) if class_file is not None else None,
        val_share=val_share,
        seed=seed,
    )
    target = cache / listing.digest(settings)
    if not (target / _RECORD).is_file():
        found = look(listing.root, format=format, task=task, class_file=class_file, val_share=val_share, seed=seed)
        _write(found, cache, target, dict(val_share=val_share, seed=seed))
    return _load(target, listing)


def _write(found: FoundData, cache: Path, target: Path, draw: dict) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(UNFINISHED, f'.{target.name}.', cache))
    try:
        record = _write_parts(found, fresh)
        members = {split: [each.image for each in found.of_split(split)] for split in found.splits}
        own = dict(given=True) if found.are_splits_given else dict(given=False, **draw)
        _write_json(dict(own, **members), fresh / 'splits.json')
        _write_json(record, fresh / _RECORD)
        # mkdtemp's folders are for their owner only.
        fresh.chmod(0o755)
        if target.is_dir() and not (target / _RECORD).is_file():
            shutil.rmtree(target)  # what is left of one that somebody has begun to delete
        try:
            fresh.rename(target)
        except OSError:
            # Another process has written the same meanwhile.
            if not (target / _RECORD).is_file():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write_parts(found: FoundData, folder: Path) -> dict[str, Any]:
    splits = {}
    for split in found.splits:
        samples = found.of_split(split)
        if found.task in ('detection', 'instance'):
            name, content = f'{split}.json', _as_coco(found, samples)
            CocoFile(content, name)  # a mistake of ours must not go on to a training
            _write_json(content, folder / name)
        else:
            name = f'{split}.txt'
            labels = [f' {each.label}' if found.task == 'classification' else '' for each in samples]
            lines = [f'{_line_of(each.image)}{label}\n' for each, label in zip(samples, labels)]
            write_atomically(''.join(lines).encode(), folder / name)
        splits[split] = dict(ann_file=name, num_images=len(samples))
    if found.task == 'segmentation':
        _write_maps(found, folder / _MAPS)
    train = found.of_split('train')
    boxes = [each.box[2:] for sample in train for each in sample.objects if not each.is_crowd]
    for name, values in (('sizes', [each.size for each in train]), ('box_sizes', boxes)):
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(values, np.float32).reshape(-1, 2))
        write_atomically(buffer.getvalue(), folder / f'{name}.npy')
    return dict(task=found.task, format=found.format, classes=found.classes, notes=found.notes, splits=splits)


def _line_of(image: str) -> str:
    """Write a name so that readers which strip lines find it."""
    return image if image == image.strip() else f'./{image}'


def _as_coco(found: FoundData, samples: list[Sample]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, sample in enumerate(samples, 1):
        width, height = sample.size
        images.append(dict(id=number, file_name=sample.image, width=width, height=height))
        for each in sample.objects:
            entry = dict(
                id=len(annotations) + 1,
                image_id=number,
                category_id=each.label + 1,
                bbox=list(each.box),
                area=each.area,
                iscrowd=int(each.is_crowd),
            )
            if found.task == 'instance':
                entry['segmentation'] = each.outline
            annotations.append(entry)
    categories = [dict(id=k, name=name) for k, name in enumerate(found.classes, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def _write_maps(found: FoundData, folder: Path) -> None:
    samples = [(split, each) for split in found.splits for each in found.of_split(split)]
    for parent in {(folder / each.image).parent for _, each in samples}:
        parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(lambda pair: _write_map(found, pair[1], folder), samples))


def _write_map(found: FoundData, sample: Sample, folder: Path) -> None:
    (folder / f'{sample.image}.png').write_bytes(encode_png(label_map(found, sample)))


def label_map(found: FoundData, sample: Sample) -> np.ndarray:
    """Make the label map of an image.

    Args:
        found (FoundData): What it is part of; for segmentation.
        sample (Sample): The image.

    Returns:
        ndarray: [H, W] as the image is loaded, uint8; 255 counts for nothing.
    """
    if found.scheme is None or sample.label_map is None or sample.facts is None:
        raise RuntimeError(f'{sample.image} has no mask')
    return fit(found.scheme.apply(read_mask(found.source / sample.label_map)), sample.facts)


def encode_png(picture: np.ndarray) -> bytes:
    """Write a picture as PNG, into memory: OpenCV opens no file with letters of another language on Windows."""
    is_done, content = cv2.imencode('.png', picture)
    if not is_done:
        raise RuntimeError(f'a picture of {picture.shape} cannot be written as PNG')
    return content.tobytes()


def _write_json(content: Any, path: Path) -> None:
    write_atomically(json.dumps(content, ensure_ascii=False, allow_nan=False).encode(), path)


def _load(target: Path, listing: Listing) -> PreparedData:
    record = json.loads((target / _RECORD).read_bytes())
    return PreparedData(
        name=listing.root.name,
        source=listing.root,
        task=record['task'],
        classes=tuple(record['classes']),
        image_root=listing.root,
        splits={
            split: PreparedSplit(target / each['ann_file'], each['num_images'])
            for split, each in record['splits'].items()
        },
        sizes=np.load(target / 'sizes.npy'),
        box_sizes=np.load(target / 'box_sizes.npy'),
        label_map_root=target / _MAPS if record['task'] == 'segmentation' else None,
        notes=tuple(record['notes']),
    )
