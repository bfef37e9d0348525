"""Folders of users in every format: recognised, converted to the same annotations, and read by the mm packages."""

import json

import numpy as np
import pytest
from data_formats import (
    CLASSES,
    COLOURS,
    HEIGHT,
    WIDTH,
    make_pictures,
    state_of,
    text,
    write_coco,
    write_imagefolder,
    write_masks,
    write_voc,
    write_yolo,
)
from PIL import Image

from vik_mm.datasets.folders import look, prepare
from vik_mm.datasets.folders.placing import outline_mask
from vik_mm.errors import BadInputError

GROUND = ('ground', *CLASSES)
PAIR = ('images/{split}', 'masks/{split}')
BOX_FORMATS = {
    'coco': (write_coco, {}, 'coco', 'instance'),
    'coco with ids that are text': (write_coco, dict(number='image {}'.format), 'coco', 'instance'),
    'coco boxes only': (write_coco, dict(with_outlines=False), 'coco', 'detection'),
    'yolo polygons, data.yaml': (write_yolo, {}, 'yolo', 'instance'),
    'yolo boxes, train/images': (write_yolo, dict(kind='boxes', order='{split}/images'), 'yolo', 'detection'),
    'yolo boxes, classes.txt': (write_yolo, dict(kind='boxes', names='classes.txt'), 'yolo', 'detection'),
    'voc': (write_voc, {}, 'voc', 'detection'),
    'voc beside the images': (write_voc, dict(is_beside=True), 'voc', 'detection'),
}
MASK_FORMATS = {
    'index': dict(folders=PAIR, table='names'),
    'palette with a table': dict(folders=PAIR, kind='palette', table='csv'),
    'rgb with csv': dict(folders=('{split}', '{split}_labels'), kind='rgb', suffix='_L.png', table='csv'),
    'rgb with label_colors.txt': dict(folders=PAIR, kind='rgb', table='camvid'),
    'camvid': dict(folders=('{split}', '{split}annot'), table='names'),
    'mmseg': dict(folders=('img_dir/{split}', 'ann_dir/{split}'), table='names'),
    'split first': dict(folders=('{split}/images', '{split}/masks'), suffix='_mask.png', table='names'),
    'cityscapes layout, own classes': dict(
        folders=('leftImg8bit/{split}/ulm', 'gtFine/{split}/ulm'), suffix='_gtFine_labelIds.png', table='names'
    ),
}


@pytest.fixture(scope='module')
def pictures():
    return make_pictures()


def by_stem(found):
    return {sample.image.rpartition('/')[2].rpartition('.')[0]: sample for sample in found.samples}


@pytest.mark.parametrize('case', BOX_FORMATS.values(), ids=BOX_FORMATS)
def test_objects_are_the_same_to_a_pixel_in_every_format(case, pictures, tmp_path):
    write, options, format, task = case
    write(tmp_path, pictures, **options)
    found = look(tmp_path)
    assert (found.format, found.task) == (format, task)
    assert sorted(found.classes) == sorted(CLASSES)
    assert {split: len(found.of_split(split)) for split in found.splits} == dict(train=6, val=3)
    samples = by_stem(found)
    for each in pictures:
        objects = samples[each.stem].objects
        assert samples[each.stem].size == (WIDTH, HEIGHT) and samples[each.stem].split == each.split
        assert [found.classes[one.label] for one in objects] == [CLASSES[label] for label, _ in each.objects]
        boxes = [box for _, box in each.boxes()]
        np.testing.assert_allclose([one.box for one in objects], boxes, atol=1e-4)
        if task == 'instance':
            for one, (_, polygon) in zip(objects, each.objects):
                masks = [outline_mask(outline, (WIDTH, HEIGHT)) for outline in (one.outline, [polygon])]
                np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize('options', MASK_FORMATS.values(), ids=MASK_FORMATS)
def test_label_maps_are_the_same_in_every_format(options, pictures, tmp_path):
    root = tmp_path / 'my masks'
    write_masks(root, pictures, **options)
    data = prepare(root, tmp_path / 'cache')
    assert data.task == 'segmentation' and data.classes == GROUND
    assert {split: each.num_images for split, each in data.splits.items()} == dict(train=6, val=3)
    for each in pictures:
        (name,) = [
            line
            for line in data.splits[each.split].ann_file.read_text().splitlines()
            if line.endswith(f'/{each.stem}.png')
        ]
        labels = np.asarray(Image.open(data.label_map_root / f'{name}.png'))
        np.testing.assert_array_equal(labels, each.label_map)
        assert (data.image_root / name).is_file()


def test_masks_of_0_and_255_have_two_classes(pictures, tmp_path):
    write_masks(tmp_path / 'data', pictures, ('images', 'masks'), kind='binary')
    data = prepare(tmp_path / 'data', tmp_path / 'cache')
    assert data.classes == ('background', 'object')
    (path, *_) = sorted(data.label_map_root.rglob('scene 0.png.png'))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), pictures[0].label_map > 0)


def test_cityscapes_ids_become_its_19_classes(pictures, tmp_path):
    ids = np.array([7, 26, 0, 24], np.uint8)  # road, car, unlabelled, person
    root = tmp_path / 'city'
    write_masks(root, pictures, ('leftImg8bit/{split}/ulm', 'gtFine/{split}/ulm'), suffix='_gtFine_labelIds.png')
    for path in (root / 'gtFine').rglob('*.png'):
        Image.fromarray(ids[np.asarray(Image.open(path))]).save(path)
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(str(path).replace('labelIds', 'color'))
    for path in list((root / 'leftImg8bit').rglob('*.png')):
        path.rename(path.with_name(f'{path.stem}_leftImg8bit.png'))
    data = prepare(root, tmp_path / 'cache')
    assert len(data.classes) == 19
    (path,) = data.label_map_root.rglob('scene 0_leftImg8bit.png.png')
    expected = np.array([0, 13, 255, 11])[pictures[0].label_map]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)


@pytest.mark.parametrize('has_splits', [True, False], ids=['train and val', 'no splits'])
def test_the_classifier_reads_a_prepared_image_folder(has_splits, pictures, tmp_path):
    from mmpretrain.datasets import CustomDataset

    write_imagefolder(tmp_path / 'data', pictures, has_splits)
    data = prepare(tmp_path / 'data', tmp_path / 'cache')
    assert data.task == 'classification' and data.classes == tuple(sorted(CLASSES))
    total = 0
    for split in data.splits.values():
        dataset = CustomDataset(
            data_root='',
            data_prefix=str(data.image_root),
            ann_file=str(split.ann_file),
            metainfo=dict(classes=data.classes),
        )
        assert len(dataset) == split.num_images
        for k in range(len(dataset)):
            info = dataset.get_data_info(k)
            assert f'/{data.classes[info["gt_label"]]}/' in info['img_path']
            Image.open(info['img_path']).verify()
        total += len(dataset)
    assert total == len(pictures)


def test_the_detector_reads_prepared_boxes_and_masks(pictures, tmp_path):
    import mmdet.datasets.transforms
    from mmdet.datasets import CocoDataset

    write_yolo(tmp_path / 'data', pictures)
    data = prepare(tmp_path / 'data', tmp_path / 'cache')
    dataset = CocoDataset(
        data_root='',
        data_prefix=dict(img=str(data.image_root)),
        ann_file=str(data.splits['train'].ann_file),
        metainfo=dict(classes=data.classes),
        pipeline=[],
    )
    assert len(dataset) == 6 == data.splits['train'].num_images
    number = sum(len(dataset.get_data_info(k)['instances']) for k in range(6))
    assert number == sum(len(each.objects) for each in pictures[:6]) == len(data.box_sizes)
    load = mmdet.datasets.transforms.LoadAnnotations(with_bbox=True, with_mask=True)
    info = dataset.get_data_info(0)
    masks = load(dict(info, ori_shape=(HEIGHT, WIDTH)))['gt_masks']
    assert masks.height == HEIGHT and len(masks) == len(info['instances'])


def test_the_segmentor_reads_prepared_label_maps(pictures, tmp_path):
    from mmseg.datasets import BaseSegDataset
    from mmseg.datasets.transforms import LoadAnnotations

    write_masks(tmp_path / 'data', pictures, PAIR, kind='rgb', table='csv')
    data = prepare(tmp_path / 'data', tmp_path / 'cache')
    dataset = BaseSegDataset(
        data_prefix=dict(img_path=str(data.image_root), seg_map_path=str(data.label_map_root)),
        ann_file=str(data.splits['val'].ann_file),
        img_suffix='',
        seg_map_suffix='.png',
        metainfo=dict(classes=data.classes),
    )
    assert len(dataset) == 3
    for k in range(3):
        info = dataset.get_data_info(k)
        Image.open(info['img_path']).verify()
        labels = LoadAnnotations()(dict(info, seg_fields=[]))['gt_seg_map']
        (each,) = [each for each in pictures if info['img_path'].endswith(f'/{each.stem}.png')]
        np.testing.assert_array_equal(labels, each.label_map)


def test_nothing_is_written_into_the_users_folder_and_nothing_is_converted_twice(pictures, tmp_path, monkeypatch):
    root = tmp_path / 'data'
    write_masks(root, pictures, PAIR, table='names')
    before = state_of(root)
    monkeypatch.chdir(tmp_path)
    first = prepare('data')
    assert state_of(root) == before
    folder = first.label_map_root.parent
    assert folder.parent == tmp_path / 'work_dirs' / 'data' / 'data'
    assert not list(folder.parent.glob('.*'))
    written = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    again = prepare('data')
    assert again.label_map_root == first.label_map_root and again.notes == first.notes
    assert written == {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    text(root / 'classes.txt', '\n'.join(('floor', *CLASSES)))
    changed = prepare('data')
    assert changed.classes[0] == 'floor' and changed.label_map_root != first.label_map_root


def test_a_cache_in_the_users_folder_is_refused(pictures, tmp_path, monkeypatch):
    write_imagefolder(tmp_path, pictures)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match='into which nothing is written'):
        prepare('.')
    assert not (tmp_path / 'work_dirs').exists()


def test_a_killed_conversion_leaves_nothing_that_is_taken_for_a_whole_one(pictures, tmp_path, monkeypatch):
    from vik_mm.datasets.folders import preparing

    write_masks(tmp_path / 'data', pictures, PAIR, table='names')

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing, '_write_map', fail)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / 'data', tmp_path / 'cache')
    assert not list((tmp_path / 'cache').iterdir())
    assert prepare(tmp_path / 'data', tmp_path / 'cache').splits['train'].num_images == 6


def test_what_can_be_read_in_two_ways_is_asked_back_with_the_choices(pictures, tmp_path):
    write_coco(tmp_path, pictures)
    write_masks(tmp_path, pictures, ('{split}2017', 'masks/{split}'), table='names')
    with pytest.raises(
        BadInputError, match=r'--data-format coco \(detection: .* or --data-format masks \(segmentation'
    ):
        look(tmp_path)
    assert look(tmp_path, format='masks').task == 'segmentation'
    assert look(tmp_path, task='segmentation').format == 'masks'
    assert look(tmp_path, task='detection').task == 'detection'


def test_colours_without_a_table_are_asked_for_with_lines_to_paste(pictures, tmp_path):
    write_masks(tmp_path / 'data', pictures, PAIR, kind='rgb')
    with pytest.raises(BadInputError, match=r'(?s)--data-classes FILE.*name_0,0,0,0\n.*128,64,0'):
        look(tmp_path / 'data')
    table = text(tmp_path / 'my.csv', ''.join(f'{n},{r},{g},{b}\n' for n, (r, g, b) in zip('gabc', COLOURS)))
    assert look(tmp_path / 'data', class_file=table).classes == tuple('gabc')


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda root: text(root / 'a.txt', 'x'), 'holds no images; there are 1 .txt'),
        (lambda root: root.mkdir(), 'holds no files'),
        (lambda root: write_flat(root), 'nothing is recognised that says what is in them'),
    ],
    ids=['no images', 'empty', 'no truth'],
)
def test_a_folder_without_data_is_refused_with_what_there_is(make, message, tmp_path):
    make(tmp_path / 'data')
    with pytest.raises(BadInputError, match=message):
        look(tmp_path / 'data')


def write_flat(root):
    write_imagefolder(root, make_pictures(2, 0)[:1], has_splits=False)


@pytest.mark.parametrize(
    'options', [dict(format='vok'), dict(task='boxes'), dict(format='voc'), dict(val_share=1)], ids=str
)
def test_options_that_do_not_fit_are_refused(options, pictures, tmp_path):
    write_imagefolder(tmp_path, pictures)
    with pytest.raises(BadInputError):
        look(tmp_path, **options)


def test_splits_of_a_prepared_folder_are_written_down(pictures, tmp_path):
    write_coco(tmp_path / 'data', pictures, has_splits=False)
    data = prepare(tmp_path / 'data', tmp_path / 'cache', seed=3)
    record = json.loads((data.splits['train'].ann_file.parent / 'splits.json').read_text())
    assert record['given'] is False and record['seed'] == 3
    assert len(record['train']) == data.splits['train'].num_images == 7 and len(record['val']) == 2
