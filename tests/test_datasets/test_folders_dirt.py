"""Dirt in users' folders: each kind trains, with a note that counts it, or stops with an error that says what to do."""

import json

import numpy as np
import pytest
from data_formats import (
    CLASSES,
    HEIGHT,
    WIDTH,
    make_pictures,
    save,
    text,
    voc_xml,
    write_coco,
    write_imagefolder,
    write_masks,
    write_voc,
    write_yolo,
    yolo_lines,
)
from PIL import Image

from vik_mm.datasets.folders import look, prepare
from vik_mm.errors import BadInputError

PAIR = ('images/{split}', 'masks/{split}')
COCO = 'annotations/instances_train2017.json'
LABEL = 'labels/train/scene 0.txt'
NAMES = (*CLASSES, 'ground')


@pytest.fixture(scope='module')
def pictures():
    return make_pictures()


def change(root, edit, name=COCO):
    content = json.loads((root / name).read_text())
    edit(content)
    (root / name).write_text(json.dumps(content))


def add(root, **entry):
    """Add an object to the first image of the training split."""
    base = dict(id=999, image_id=3, category_id=2, bbox=[1, 1, 9, 9], area=81, segmentation=[[1, 1, 10, 1, 10, 10]])
    change(root, lambda content: content['annotations'].append({**base, **entry}))


def append(root, *lines):
    with open(root / LABEL, 'a') as file:
        file.writelines(f'{line}\n' for line in lines)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


# What is done to a good folder, and the line that must be among the notes.
DIRT = {
    'coco: box beyond the image': (
        write_coco,
        lambda r: add(r, bbox=[-20, 1, 50, 9]),
        'boxes that reach beyond their image, cut off at its edge: 1',
    ),
    'coco: box outside': (
        write_coco,
        lambda r: add(r, bbox=[300, 1, 5, 9]),
        'objects outside of their image, left out: 1',
    ),
    'coco: box without area': (
        write_coco,
        lambda r: add(r, bbox=[5, 5, 0, 9]),
        'objects whose box has no area, left out: 1',
    ),
    'coco: NaN': (
        write_coco,
        lambda r: add(r, bbox=[float('nan'), 5, 4, 9]),
        'objects whose box is not a number, left out: 1',
    ),
    'coco: duplicate id': (
        write_coco,
        lambda r: add(r, id=0),
        'objects that share their id with another object, numbered anew: 1',
    ),
    'coco: object twice': (
        write_coco,
        lambda r: (add(r), add(r, id=1000)),
        'objects that stand twice in a file, used once: 1',
    ),
    'coco: unknown category': (
        write_coco,
        lambda r: add(r, category_id=77),
        'objects of a category that is not listed, left out: 1',
    ),
    'coco: unknown image': (
        write_coco,
        lambda r: add(r, image_id='no'),
        'objects of images that are not used, left out: 1',
    ),
    'coco: missing image': (
        write_coco,
        lambda r: (r / 'train2017/scene 0.png').unlink(),
        'images that are not there, left out: 1 (scene 0.png',
    ),
    'coco: two images with one id': (
        write_coco,
        lambda r: change(r, lambda c: c['images'].append({**c['images'][1], 'id': c['images'][0]['id']})),
        'images that share their id with another image, left out with it: 1',
    ),
    'coco: extra image': (
        write_coco,
        lambda r: save(r / 'train2017/extra.png', np.zeros((9, 9), np.uint8)),
        'images that no annotation file names, left out: 1',
    ),
    'yolo: box beyond the image': (
        write_yolo,
        lambda r: append(r, '0 0.95 0.5 0.3 0.4'),
        'boxes that reach beyond their image, cut off at its edge: 1',
    ),
    'yolo: class without a name': (
        write_yolo,
        lambda r: append(r, '9 0.5 0.5 0.3 0.4'),
        'objects with a class number that has no name, left out: 1',
    ),
    'yolo: broken line': (
        write_yolo,
        lambda r: append(r, '0 0.5 zero'),
        'lines that are neither "class x y width height"',
    ),
    'yolo: empty label file': (
        write_yolo,
        lambda r: (r / LABEL).write_text(''),
        'images without objects in the split train: 1 of 6',
    ),
    'yolo: image without labels': (
        write_yolo,
        lambda r: (r / LABEL).unlink(),
        'images without a label file, used as images without objects: 1',
    ),
    'yolo: labels without image': (
        write_yolo,
        lambda r: (r / 'images/train/scene 0.png').unlink(),
        'label files without an image, left out: 1',
    ),
    'voc: xml without image': (
        write_voc,
        lambda r: (r / 'JPEGImages/scene 0.png').unlink(),
        'XML files without an image, left out: 1',
    ),
    'voc: image without xml': (
        write_voc,
        lambda r: (r / 'Annotations/scene 0.xml').unlink(),
        'images without an XML file, left out: 1',
    ),
    'voc: broken xml': (
        write_voc,
        lambda r: truncate(r / 'Annotations/scene 0.xml'),
        'XML files that cannot be read or are no annotations',
    ),
    'imagefolder: truncated image': (
        write_imagefolder,
        lambda r: truncate(r / 'Train/heart/scene 0.PNG'),
        'images that cannot be read, left out: 1',
    ),
    'imagefolder: empty file': (
        write_imagefolder,
        lambda r: (r / 'Train/heart/scene 0.PNG').write_bytes(b''),
        'scene 0.PNG: it is empty',
    ),
    'imagefolder: text called .jpg': (
        write_imagefolder,
        lambda r: text(r / 'Train/heart/page.jpg', '<html>'),
        'page.jpg: OpenCV cannot read it',
    ),
    'imagefolder: 16 bits': (
        write_imagefolder,
        lambda r: save(r / 'Train/heart/deep.png', np.full((40, 50), 40000, np.uint16)),
        '16-bit images, loaded with their upper 8 bits: 1',
    ),
    'imagefolder: grey': (
        write_imagefolder,
        lambda r: save(r / 'Train/heart/grey.png', np.full((40, 50), 40, np.uint8)),
        'greyscale images, loaded with three equal channels: 1',
    ),
    'imagefolder: RGBA': (
        write_imagefolder,
        lambda r: Image.new('RGBA', (40, 50)).save(r / 'Train/heart/glass.png'),
        'images with transparency, which is dropped: 1',
    ),
    'imagefolder: same image in both splits': (
        write_imagefolder,
        lambda r: (r / 'Val/star/copy.PNG').write_bytes((r / 'Train/star/scene 1.PNG').read_bytes()),
        'images of val that are also in train, byte for byte (scores will be too good): 1',
    ),
    'masks: image without mask': (
        'masks',
        lambda r: (r / 'masks/train/scene 0.png').unlink(),
        'images without a mask, left out: 1',
    ),
    'masks: mask without image': (
        'masks',
        lambda r: (r / 'images/train/scene 0.png').unlink(),
        'masks without an image, left out: 1',
    ),
    'masks: another shape': (
        'masks',
        lambda r: save(r / 'masks/train/scene 0.png', np.ones((64, 64), np.uint8)),
        'images whose mask has another size and shape, left out: 1',
    ),
    'masks: half the size': (
        'masks',
        lambda r: save(r / 'masks/train/scene 0.png', np.ones((32, 48), np.uint8)),
        'masks of another size than their image and of the same shape, which were scaled: 1',
    ),
    'masks: broken mask': (
        'masks',
        lambda r: truncate(r / 'masks/train/scene 0.png'),
        'masks that cannot be read, left out with their images: 1',
    ),
}


@pytest.mark.parametrize(('write', 'spoil', 'note'), DIRT.values(), ids=DIRT)
def test_dirt_is_counted_and_the_rest_is_used(write, spoil, note, pictures, tmp_path):
    root = tmp_path / 'Données übung'
    if write == 'masks':
        write_masks(root, pictures, PAIR, table='names')
    else:
        write(root, pictures)
    spoil(root)
    data = prepare(root, tmp_path / 'cache')
    assert [line for line in data.notes if note in line], data.notes
    assert data.splits['train'].num_images >= 4 and data.splits['val'].num_images >= 3
    for split in data.splits.values():
        if split.ann_file.suffix == '.json':
            content = json.loads(split.ann_file.read_text())
            for each in content['annotations']:
                left, top, width, height = each['bbox']
                assert left >= 0 and top >= 0 and width >= 1 and height >= 1
                assert left + width <= WIDTH and top + height <= HEIGHT
            names = [each['file_name'] for each in content['images']]
        else:
            suffix = r' \d+' if data.task == 'classification' else ''
            lines = split.ann_file.read_text().splitlines()
            names = [line.rsplit(' ', 1)[0] if suffix else line for line in lines]
        assert names and all((data.image_root / name).is_file() for name in names)


def one_based(root):
    for path in (root / 'labels').rglob('*.txt'):
        lines = [line.split(None, 1) for line in path.read_text().splitlines()]
        path.write_text(''.join(f'{int(label) + 1} {rest}\n' for label, rest in lines))


def in_pixels(root):
    for path in (root / 'labels').rglob('*.txt'):
        path.write_text('0 30 20 10 12\n')


def repaint(root, values):
    for path in (root / 'masks').rglob('*.png'):
        Image.fromarray(np.array(values, np.uint8)[np.asarray(Image.open(path))]).save(path)


ERRORS = {
    'yolo: classes from 1': (write_yolo, one_based, 'YOLO counts from 0, so subtract 1'),
    'yolo: pixels': (write_yolo, in_pixels, 'is not in shares of the image'),
    'coco: broken json': (write_coco, lambda r: truncate(r / COCO), 'cannot be read as a COCO annotation file'),
    'coco: no image there': (
        write_coco,
        lambda r: [p.rename(r / f'x{p.stem}.png') for p in r.glob('*2017/*')],
        'none of the images that',
    ),
    'coco: two files of the same images': (
        write_coco,
        lambda r: text(r / 'annotations/train_new.json', (r / COCO).read_text()),
        'both describe train2017/',
    ),
    'masks: numbers without names': (
        'masks',
        lambda r: repaint(r, [0, 1, 2, 7]),
        'hold the number 7, and classes.txt has 4 names',
    ),
    'masks: two for an image': (
        'masks',
        lambda r: save(r / 'gt/train/scene 0.png', np.ones((9, 9), np.uint8)),
        'scene 0.png has two masks',
    ),
    'masks: greys that stand for classes': (
        'masks',
        lambda r: ((r / 'classes.txt').unlink(), repaint(r, [0, 85, 170, 200])),
        'grey values that stand for',
    ),
}


@pytest.mark.parametrize(('write', 'spoil', 'message'), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_known_stops_with_what_to_do(write, spoil, message, pictures, tmp_path):
    if write == 'masks':
        write_masks(tmp_path, pictures, PAIR, table='names')
    else:
        write(tmp_path, pictures)
    spoil(tmp_path)
    with pytest.raises(BadInputError, match=message):
        look(tmp_path)


# How a picture must be stored so that a viewer that turns it by this number shows the picture itself.
STORED = {
    2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1], 5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p), 7: lambda p: p[::-1, ::-1].swapaxes(0, 1), 8: lambda p: np.rot90(p, -1),
}  # fmt: skip


def save_turned(path, picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.ascontiguousarray(STORED[orientation](picture))
    Image.fromarray(stored).save(path, quality=98, subsampling=0, exif=exif)
    return stored


@pytest.mark.parametrize('orientation', STORED)
def test_images_that_exif_turns_have_the_size_that_the_loader_gives(orientation, tmp_path):
    import mmcv

    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:20, :30] = 255
    for split in ('train', 'val'):
        save_turned(tmp_path / split / 'images' / 'a.jpg', picture, orientation)
        text(tmp_path / split / 'labels' / 'a.txt', f'0 {15 / WIDTH} {10 / HEIGHT} {30 / WIDTH} {20 / HEIGHT}\n')
    found = look(tmp_path)
    loaded = mmcv.imread(str(tmp_path / 'train/images/a.jpg'))
    assert found.samples[0].size == (WIDTH, HEIGHT) == loaded.shape[1::-1]
    (each,) = found.samples[0].objects
    np.testing.assert_allclose(each.box, [0, 0, 30, 20], atol=1e-3)
    assert loaded[:18, :28].min() > 200 and loaded[24:].max() < 50
    assert any('EXIF' in line for line in found.notes)


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
def test_annotations_of_the_stored_picture_are_turned_with_it(orientation, tmp_path):
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    picture[10:40, 20:30], mask[10:40, 20:30] = 255, 1
    for split in ('train', 'val'):
        stored = save_turned(tmp_path / f'boxes/{split}/a.jpg', picture, orientation)
        save_turned(tmp_path / f'maps/images/{split}/a.jpg', picture, orientation)
        stored_mask = np.ascontiguousarray(STORED[orientation](mask))
        save(tmp_path / f'maps/masks/{split}/a.png', stored_mask)
        down, across = np.nonzero(stored_mask)
        sides = dict(xmin=across.min(), ymin=down.min(), xmax=across.max() + 1, ymax=down.max() + 1)
        box = ''.join(f'<{side}>{value}</{side}>' for side, value in sides.items())
        size = f'<size><width>{stored.shape[1]}</width><height>{stored.shape[0]}</height></size>'
        content = f'<annotation>{size}<object><name>bar</name><bndbox>{box}</bndbox></object></annotation>'
        text(tmp_path / f'boxes/{split}/a.xml', content)
    (each,) = look(tmp_path / 'boxes').samples[0].objects
    np.testing.assert_allclose(each.box, [20, 10, 10, 30])
    data = prepare(tmp_path / 'maps', tmp_path / 'cache')
    np.testing.assert_array_equal(np.asarray(Image.open(data.label_map_root / 'images/train/a.jpg.png')), mask)


def test_annotations_of_a_larger_picture_are_scaled(pictures, tmp_path):
    for each in pictures:
        save(tmp_path / each.split / f'{each.stem}.png', each.image)
        text(
            tmp_path / each.split / f'{each.stem}.xml', voc_xml(each).replace('>96<', '>192<').replace('>64<', '>128<')
        )
    found = look(tmp_path)
    boxes = [box for _, box in pictures[0].boxes()]
    np.testing.assert_allclose([each.box for each in found.of_split('train')[0].objects], np.array(boxes) / 2)


@pytest.mark.parametrize('name', ['Ärger 1', '猫', ' leading', 'UPPER'])
def test_names_in_any_spelling_are_found(name, tmp_path):
    each = make_pictures(1, 0)[0]
    for split in ('Train', 'Valid'):
        save(tmp_path / 'data' / split / 'Images' / f'{name}.PNG', each.image)
        text(tmp_path / 'data' / split / 'Labels' / f'{name.lower()}.txt', '\n'.join(yolo_lines(each)))
        save(tmp_path / 'maps' / split / 'Images' / f'{name}.PNG', each.image)
        save(tmp_path / 'maps' / split / 'Masks' / f'{name}.png', each.label_map)
    assert {split: len(look(tmp_path / 'data').of_split(split)) for split in ('train', 'val')} == dict(train=1, val=1)
    data = prepare(tmp_path / 'maps', tmp_path / 'cache')
    line = data.splits['train'].ann_file.read_text().splitlines()[0].strip()
    assert (data.image_root / line).is_file() and (data.label_map_root / f'{line}.png').is_file()


def test_masks_saved_as_jpeg_are_brought_back_to_two_classes(pictures, tmp_path):
    write_masks(tmp_path / 'data', pictures, ('images', 'masks'), kind='binary', suffix='.jpg')
    data = prepare(tmp_path / 'data', tmp_path / 'cache')
    labels = np.asarray(Image.open(next(data.label_map_root.rglob('scene 0.png.png'))))
    assert data.classes == ('background', 'object')
    assert ((labels > 0) != (pictures[0].label_map > 0)).mean() < 0.01
    assert any('saved as JPEG' in line for line in data.notes)


def test_a_crowd_and_an_image_without_objects_are_kept(pictures, tmp_path):
    write_coco(tmp_path / 'data', pictures)
    add(tmp_path / 'data', iscrowd=1, segmentation=dict(size=[HEIGHT, WIDTH], counts=[0, 100, HEIGHT * WIDTH - 100]))
    change(
        tmp_path / 'data',
        lambda content: content.update(annotations=[a for a in content['annotations'] if a['image_id'] != 13]),
    )
    data = prepare(tmp_path / 'data', tmp_path / 'cache')
    content = json.loads(data.splits['train'].ann_file.read_text())
    assert data.task == 'instance' and len(content['images']) == 6
    assert sum(each['iscrowd'] for each in content['annotations']) == 1


def test_objects_without_an_outline_make_it_detection_unless_masks_are_asked_for(pictures, tmp_path):
    write_coco(tmp_path, pictures)
    add(tmp_path, segmentation=[])
    found = look(tmp_path)
    assert found.task == 'detection' and any('--data-task instance' in line for line in found.notes)
    assert look(tmp_path, task='instance').task == 'instance'
