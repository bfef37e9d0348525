"""The built-in data set: scenes of geometric shapes, drawn from a seed, for demos and tests of all three tasks.

A scene holds one large shape, its class, and smaller shapes of any class that may overlap it. Ground and shapes have
random colours and textures, and noise lies over all, so that colour, size, place and texture say nothing about the
class: only outlines do.
"""

import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vik_mm.errors import BadInputError, UnavailableError

SPLITS = ('train', 'val', 'test')
LAYOUTS = ('imagenet', 'coco', 'ade20k')

_SUPERSAMPLE = 4
_MIN_VISIBLE_PIXELS = 12


def _polar(radii, start=0.0) -> np.ndarray:
    """Polygon through points at evenly spread angles, ``[n, 2]``."""
    radii = np.asarray(radii, dtype=float)
    angles = start + np.linspace(0, 2 * math.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _crescent() -> np.ndarray:
    outer = np.linspace(0.25 * math.pi, 1.75 * math.pi, 40)
    tips = np.stack([np.cos(outer[[0, -1]]), np.sin(outer[[0, -1]])], axis=1)
    center, radius = np.array([0.55, 0.0]), np.hypot(*(tips[0] - [0.55, 0.0]))
    angle = math.atan2(tips[1][1] - center[1], tips[1][0] - center[0]) % (2 * math.pi)
    inner = np.linspace(angle, 2 * math.pi - angle, 40)
    inside = center + radius * np.stack([np.cos(inner), np.sin(inner)], axis=1)
    return np.concatenate([np.stack([np.cos(outer), np.sin(outer)], axis=1), inside])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)
    return np.stack([x, y], axis=1) / 17


def _cross() -> np.ndarray:
    a, b = 0.3, 0.95
    return np.array(
        [(a, b), (a, a), (b, a), (b, -a), (a, -a), (a, -b), (-a, -b), (-a, -a), (-b, -a), (-b, a), (-a, a), (-a, b)]
    )


# Each class is a list of outlines of about unit radius; a second outline is a hole.
_OUTLINES = {
    'circle': [_polar(np.ones(60))],
    'crescent': [_crescent()],
    'cross': [_cross()],
    'heart': [_heart()],
    'ring': [_polar(np.ones(60)), _polar(np.full(60, 0.55))],
    'square': [_polar(np.ones(4), math.pi / 4)],
    'star': [_polar(np.tile([1.0, 0.42], 5), -math.pi / 2)],
    'triangle': [_polar(np.ones(3), -math.pi / 2)],
}
CLASSES = tuple(sorted(_OUTLINES))


@dataclass(frozen=True)
class Scene:
    """One picture and what is in it.

    Args:
        image (np.ndarray): ``[H, W, 3]``, uint8, BGR as OpenCV and the mm packages have it.
        masks (np.ndarray): Visible pixels of each shape, ``[K, H, W]``, bool; no pixel belongs to two.
        labels (np.ndarray): Index into ``CLASSES`` of each shape, ``[K]``; the first is the class of the scene.
    """

    image: np.ndarray
    masks: np.ndarray
    labels: np.ndarray


def draw_scene(seed: int | Sequence[int], size: int = 64, max_distractors: int = 2) -> Scene:
    """Draw a scene.

    Args:
        seed (int | Sequence[int]): Seed of everything that is random in it, class included.
        size (int): Side of the picture, in pixels. Defaults to 64.
        max_distractors (int): Most small shapes beside the large one. Defaults to 2.

    Returns:
        Scene: The same for the same arguments.

    Raises:
        BadInputError: If ``size < 32`` or ``max_distractors < 0``.
    """
    if size < 32:
        raise BadInputError(f'size={size} must be at least 32: outlines cannot be told in fewer pixels')
    if max_distractors < 0:
        raise BadInputError(f'max_distractors={max_distractors} must be 0 or more')
    rng = np.random.default_rng(seed)
    ground, light = _texture(rng, size)
    image = ground
    labels = [int(rng.integers(len(CLASSES)))]
    radii = [rng.uniform(0.28, 0.44) * size]
    for _ in range(rng.integers(max_distractors + 1)):
        labels.append(int(rng.integers(len(CLASSES))))
        radii.append(radii[0] * rng.uniform(0.2, 0.4))

    masks = np.zeros((len(labels), size, size), dtype=bool)
    # From back to front; small shapes may lie in front of the large one or behind it.
    for k in rng.permutation(len(labels)):
        alpha = _coverage(rng, CLASSES[labels[k]], radii[k], size)
        fill, _ = _texture(rng, size, away_from=light)
        image = image + alpha[..., None] * (fill - image)
        masks[:, alpha > 0.5] = False
        masks[k] = alpha > 0.5
    image = image + rng.normal(0, rng.uniform(2, 10), image.shape)

    visible = masks.sum(axis=(1, 2)) >= _MIN_VISIBLE_PIXELS
    visible[0] = True
    return Scene(np.clip(image, 0, 255).astype(np.uint8), masks[visible], np.array(labels)[visible])


def _texture(rng, size: int, away_from: float | None = None) -> tuple[np.ndarray, float]:
    """Draw a coloured texture, ``[size, size, 3]`` float, and tell its lightness.

    Waves of two directions and soft blobs lie over one colour. ``away_from`` keeps its lightness apart from another's.
    """
    color = rng.uniform(40, 215, 3)
    if away_from is not None:
        step = rng.uniform(60, 110) * (1 if away_from < 128 else -1)
        color = color + (away_from + step - color.mean())
    y, x = np.mgrid[:size, :size] / size
    pattern = np.zeros((size, size))
    for _ in range(2):
        angle, frequency = rng.uniform(0, math.pi), rng.uniform(4, 30)
        wave = frequency * (x * math.cos(angle) + y * math.sin(angle)) + rng.uniform(0, 2 * math.pi)
        pattern += rng.uniform(0, 0.5) * np.sin(wave)
    blobs = rng.normal(size=(6, 6)).astype(np.float32)
    pattern += 0.4 * cv2.resize(blobs, (size, size), interpolation=cv2.INTER_CUBIC)
    return color + 12 * pattern[..., None] * rng.uniform(0.5, 1.2, 3), float(color.mean())


def _coverage(rng, name: str, radius: float, size: int) -> np.ndarray:
    """Draw one shape somewhere, turned, stretched and slanted; coverage of each pixel in 0..1, ``[size, size]``."""
    angle, stretch = rng.uniform(-0.6, 0.6), rng.uniform(0.8, 1.25)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    slant = np.array([[stretch, rng.uniform(-0.15, 0.15)], [0, 1 / stretch]])
    center = rng.uniform(radius * 0.9, size - radius * 0.9, 2)
    outlines = [
        np.round((outline @ slant.T @ turn.T * radius + center) * _SUPERSAMPLE).astype(np.int32)
        for outline in _OUTLINES[name]
    ]
    fine = np.zeros((size * _SUPERSAMPLE,) * 2, dtype=np.uint8)
    cv2.fillPoly(fine, outlines, 255)  # even-odd rule: a second outline is a hole
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) / 255


def write_shapes(
    root: str | os.PathLike, num_scenes: dict[str, int], layouts: Iterable[str] = LAYOUTS, size: int = 64, seed: int = 0
) -> Path:
    """Write scenes in the layouts that the mm packages read.

    .. code-block:: text

        root/imagenet/{train,val,test}/<class>/<number>.png
        root/coco/{train,val,test}2017/<number>.png, root/coco/annotations/instances_{train,val,test}2017.json
        root/ade20k/{images,annotations}/{training,validation,testing}/<number>.png, root/ade20k/classes.txt

    COCO has visible masks as RLE. The label maps are ADE20K's: 0 would be 'other' and occurs nowhere, 1 is the ground,
    ``k + 2`` the shape ``k``; ``reduce_zero_label=True`` makes that 0 and ``k + 1``.

    The folder is written beside and put in place as a whole; one that is there with the same settings is left as it is.

    Args:
        root (str | PathLike): Where to write.
        num_scenes (dict[str, int]): Scenes for each split, of 'train', 'val' and 'test'.
        layouts (Iterable[str]): Some of 'imagenet', 'coco' and 'ade20k'. Defaults to all.
        size (int): Side of the pictures, in pixels. Defaults to 64.
        seed (int): Seed; splits share no scene. Defaults to 0.

    Returns:
        Path: ``root``.

    Raises:
        BadInputError: If a split or layout is unknown.
        FileExistsError: If ``root`` holds other files, or shapes of other settings.
    """
    root, layouts = Path(root), tuple(layouts)
    for given, known in ((num_scenes, SPLITS), (layouts, LAYOUTS)):
        if unknown := set(given) - set(known):
            raise BadInputError(f'{sorted(unknown)} is unknown; choose from {known}')
    settings = dict(num_scenes=num_scenes, layouts=sorted(layouts), size=size, seed=seed, classes=CLASSES)
    settings_text = json.dumps(settings, sort_keys=True)
    record = root / 'shapes.json'
    if record.is_file() and record.read_text() == settings_text:
        return root
    if root.exists() and any(root.iterdir()):
        what = 'shapes of other settings' if record.is_file() else 'other files'
        raise FileExistsError(f'{root} holds {what}; name another folder, or delete it')

    fresh = root.with_name(root.name + '.part')
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    writers = [_WRITERS[layout](fresh / layout) for layout in layouts]
    for split, count in num_scenes.items():
        for index in range(count):
            scene = draw_scene((seed, SPLITS.index(split), index), size)
            for writer in writers:
                writer.add(split, index, scene)
    for writer in writers:
        writer.finish()
    (fresh / record.name).write_text(settings_text)
    if root.exists():
        root.rmdir()  # empty, or it would have been refused above
    fresh.rename(root)
    return root


class _ImageNetWriter:
    def __init__(self, root: Path):
        self.root = root

    def add(self, split: str, index: int, scene: Scene):
        _write_image(self.root / split / CLASSES[scene.labels[0]] / f'{index:06d}.png', scene.image)

    def finish(self):
        # Readers number classes by folder: one that no scene fell into must be there all the same.
        for split in self.root.iterdir():
            for name in CLASSES:
                (split / name).mkdir(exist_ok=True)


class _CocoWriter:
    def __init__(self, root: Path):
        try:
            from pycocotools import mask
        except ImportError as error:
            raise UnavailableError('the COCO layout needs pycocotools: pip install pycocotools') from error
        self.mask, self.root = mask, root
        self.splits: dict[str, dict] = {}

    def add(self, split: str, index: int, scene: Scene):
        content = self.splits.setdefault(split, dict(images=[], annotations=[]))
        height, width = scene.image.shape[:2]
        name = f'{index:012d}.png'
        _write_image(self.root / f'{split}2017' / name, scene.image)
        content['images'].append(dict(id=index, file_name=name, height=height, width=width))
        for mask, label in zip(scene.masks, scene.labels):
            if not mask.any():
                continue
            code = self.mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            content['annotations'].append(
                dict(
                    id=len(content['annotations']) + 1,
                    image_id=index,
                    category_id=int(label) + 1,
                    bbox=[float(v) for v in self.mask.toBbox(code)],
                    area=int(mask.sum()),
                    segmentation=dict(size=[height, width], counts=code['counts'].decode()),
                    iscrowd=0,
                )
            )

    def finish(self):
        folder = self.root / 'annotations'
        folder.mkdir()
        categories = [dict(id=k + 1, name=name) for k, name in enumerate(CLASSES)]
        for split, content in self.splits.items():
            path = folder / f'instances_{split}2017.json'
            path.write_text(json.dumps(dict(content, categories=categories)))


class _Ade20kWriter:
    folders = dict(train='training', val='validation', test='testing')

    def __init__(self, root: Path):
        self.root = root

    def add(self, split: str, index: int, scene: Scene):
        labels = np.ones(scene.image.shape[:2], dtype=np.uint8)
        for mask, label in zip(scene.masks, scene.labels):
            labels[mask] = label + 2
        name = f'{index:06d}.png'
        _write_image(self.root / 'images' / self.folders[split] / name, scene.image)
        _write_image(self.root / 'annotations' / self.folders[split] / name, labels)

    def finish(self):
        (self.root / 'classes.txt').write_text('\n'.join(('ground', *CLASSES)) + '\n')


_WRITERS: dict[str, Any] = dict(imagenet=_ImageNetWriter, coco=_CocoWriter, ade20k=_Ade20kWriter)


def _write_image(path: Path, image: np.ndarray):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f'{path} could not be written')
