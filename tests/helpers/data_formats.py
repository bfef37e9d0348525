"""The same few scenes of shapes, written in every format that users have."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vik_mm.datasets.shapes import draw_scene

WIDTH, HEIGHT = 96, 64  # unlike sides, so that one taken for the other shows
CLASSES = ('heart', 'star', 'cross')
COLOURS = ((0, 0, 0), (128, 64, 0), (0, 128, 192), (200, 10, 250))


@dataclass
class Picture:
    """An image, its class, and objects as polygons that do not overlap; the label map has 0 for the ground."""

    stem: str
    split: str
    image: np.ndarray
    label: int
    objects: list[tuple[int, list[float]]]
    label_map: np.ndarray

    def boxes(self):
        for label, polygon in self.objects:
            left, top, right, bottom = *np.reshape(polygon, (-1, 2)).min(0), *np.reshape(polygon, (-1, 2)).max(0)
            yield label, [float(left), float(top), float(right - left), float(bottom - top)]


def make_pictures(train=6, val=3, seed=7):
    pictures = []
    for k in range(train + val):
        image = draw_scene((seed, k), WIDTH).image[:HEIGHT]
        rng = np.random.default_rng((seed, k))
        label_map, objects = np.zeros((HEIGHT, WIDTH), np.uint8), []
        for cell in range(1 + k % 3):
            left, top = 4 + 30 * cell + rng.integers(6), 5 + rng.integers(20)
            right, bottom = left + 12 + rng.integers(8), top + 14 + rng.integers(18)
            label = int((k + cell) % len(CLASSES))
            polygon = [left, top, right, top, right, bottom, (left + right) // 2, bottom - 4, left, bottom]
            objects.append((label, [float(value) for value in polygon]))
            cv2.fillPoly(label_map, [np.reshape(polygon, (-1, 2)).astype(np.int32)], label + 1)
        split = 'train' if k < train else 'val'
        pictures.append(Picture(f'scene {k}', split, image, k % len(CLASSES), objects, label_map))
    return pictures


def save(path: Path, picture: np.ndarray, **options):
    """Write an image of any kind; three channels are BGR."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture[..., ::-1] if picture.ndim == 3 else picture).save(path, **options)
    return path


def text(path: Path, content: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding='utf-8')
    return path


def write_imagefolder(root, pictures, has_splits=True):
    for each in pictures:
        folder = root / each.split.capitalize() if has_splits else root
        save(folder / CLASSES[each.label] / f'{each.stem}.PNG', each.image)


def write_coco(root, pictures, has_splits=True, number=lambda k: 10 * k + 3, with_outlines=True):
    files = {}
    for k, each in enumerate(pictures):
        name = each.split if has_splits else 'all'
        content = files.setdefault(name, dict(images=[], annotations=[]))
        folder = f'{name}2017' if has_splits else 'nested/deeper'
        save(root / folder / f'{each.stem}.png', each.image)
        content['images'].append(dict(id=number(k), file_name=f'{each.stem}.png', width=WIDTH, height=HEIGHT))
        for (label, polygon), (_, box) in zip(each.objects, each.boxes()):
            entry = dict(id=len(content['annotations']), image_id=number(k), category_id=7 * label + 2, bbox=box)
            entry |= dict(area=box[2] * box[3], iscrowd=0) | (dict(segmentation=[polygon]) if with_outlines else {})
            content['annotations'].append(entry)
    categories = [dict(id=7 * k + 2, name=name) for k, name in enumerate(CLASSES)]
    for name, content in files.items():
        stem = f'instances_{name}2017' if has_splits else 'labels'
        text(root / 'annotations' / f'{stem}.json', json.dumps(dict(content, categories=categories)))


def yolo_lines(each, kind='polygons'):
    scale = np.array([WIDTH, HEIGHT])
    for (label, polygon), (_, (left, top, width, height)) in zip(each.objects, each.boxes()):
        if kind == 'polygons':
            values = (np.reshape(polygon, (-1, 2)) / scale).ravel()
        else:
            values = [(left + width / 2) / WIDTH, (top + height / 2) / HEIGHT, width / WIDTH, height / HEIGHT]
        yield ' '.join([str(label), *(f'{value:.9f}' for value in values)])


def write_yolo(root, pictures, kind='polygons', order='images/{split}', names='yaml'):
    for each in pictures:
        folder = order.format(split=each.split)
        save(root / folder / f'{each.stem}.png', each.image)
        labels = root / folder.replace('images', 'labels') / f'{each.stem}.txt'
        text(labels, '\n'.join(yolo_lines(each, kind)) + '\n')
    if names == 'yaml':
        entries = ''.join(f'  {k}: {name}\n' for k, name in enumerate(CLASSES))
        paths = ''.join(f'{split}: ../{order.format(split=split)}\n' for split in ('train', 'val'))
        text(root / 'data.yaml', f'path: ../moved/away\n{paths}names:\n{entries}')
    elif names == 'classes.txt':
        text(root / 'classes.txt', '\n'.join(CLASSES))


def voc_xml(each, size=(WIDTH, HEIGHT), filename=None):
    objects = ''
    for label, (left, top, width, height) in each.boxes():
        sides = dict(xmin=left, ymin=top, xmax=left + width, ymax=top + height)
        box = ''.join(f'<{side}>{value:g}</{side}>' for side, value in sides.items())
        objects += f'<object><name>{CLASSES[label]}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>'
    frame = f'<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>'
    return f'<annotation><filename>{filename or each.stem + ".png"}</filename>{frame}{objects}</annotation>'


def write_voc(root, pictures, is_beside=False):
    for each in pictures:
        images, annotations = (f'{each.split}', f'{each.split}') if is_beside else ('JPEGImages', 'Annotations')
        save(root / images / f'{each.stem}.png', each.image)
        text(root / annotations / f'{each.stem}.xml', voc_xml(each))
    if not is_beside:
        for split in ('train', 'val'):
            names = [each.stem for each in pictures if each.split == split]
            text(root / 'ImageSets' / 'Main' / f'{split}.txt', '\n'.join(names))


def coloured(label_map):
    return np.array(COLOURS, np.uint8)[label_map]


def write_masks(root, pictures, folders, kind='index', suffix='.png', table=''):
    """Folders is a pair, of images and of masks, with {split} in both."""
    for each in pictures:
        save(root / folders[0].format(split=each.split) / f'{each.stem}.png', each.image)
        path = root / folders[1].format(split=each.split) / f'{each.stem}{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == 'palette':
            mask = Image.fromarray(each.label_map)
            mask.putpalette([value for colour in COLOURS for value in colour])
        elif kind == 'rgb':
            mask = Image.fromarray(coloured(each.label_map))
        elif kind == 'binary':
            mask = Image.fromarray(np.where(each.label_map > 0, 255, 0).astype(np.uint8))
        else:
            mask = Image.fromarray(each.label_map)
        mask.save(path)
    names = ('ground', *CLASSES)
    if table == 'names':
        text(root / 'classes.txt', '\n'.join(names))
    elif table == 'csv':
        rows = ''.join(f'{name},{r},{g},{b}\n' for name, (r, g, b) in zip(names, COLOURS))
        text(root / 'class_dict.csv', f'name,r,g,b\n{rows}')
    elif table == 'camvid':
        rows = ''.join(f'{r} {g} {b}\t\t{name}\n' for name, (r, g, b) in zip(names, COLOURS))
        text(root / 'label_colors.txt', rows)


def state_of(root):
    """What is in a folder, to the byte."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}
