import json

import cv2
import numpy as np
import pytest

from vik_mm.datasets.shapes import CLASSES, draw_scene, write_shapes

COUNTS = dict(train=24, val=6, test=3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes', COUNTS, seed=3)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def test_a_seed_decides_every_byte(folder, tmp_path):
    again = write_shapes(tmp_path / 'again', COUNTS, seed=3)
    assert files(again) == files(folder)
    other = write_shapes(tmp_path / 'other', COUNTS, seed=4)
    assert files(other) != files(folder)


def test_a_scene_does_not_depend_on_how_many_there_are(folder, tmp_path):
    few = files(write_shapes(tmp_path / 'few', dict(train=2), ['coco'], seed=3))
    name = 'coco/train2017/000000000001.png'
    assert few[name] == files(folder)[name]


def test_masks_are_visible_pixels_of_one_shape_each():
    for seed in range(30):
        scene = draw_scene(seed)
        assert scene.image.shape == (64, 64, 3)
        assert scene.image.dtype == np.uint8
        assert len(scene.masks) == len(scene.labels) >= 1
        assert scene.masks.sum(0).max() <= 1
        areas = scene.masks.sum((1, 2))
        assert areas.min() > 0
        assert scene.labels.max() < len(CLASSES)


def test_colour_carries_no_class():
    """A nearest-mean classifier on mean colours does no better than chance."""
    scenes = [draw_scene((1, i)) for i in range(1200)]
    colors = np.array([s.image.reshape(-1, 3).mean(0) for s in scenes])
    labels = np.array([s.labels[0] for s in scenes])
    means = np.array([colors[:800][labels[:800] == k].mean(0) for k in range(len(CLASSES))])
    guess = np.linalg.norm(colors[800:, None] - means, axis=2).argmin(1)
    # 400 tries at chance 1/8: standard error 1.7 %; 4 of them.
    assert (guess == labels[800:]).mean() < 1 / len(CLASSES) + 0.066


def test_imagenet_layout_is_read_by_mmpretrain(folder):
    from mmpretrain.datasets import CustomDataset

    dataset = CustomDataset(data_root=str(folder / 'imagenet'), data_prefix='train')
    assert len(dataset) == COUNTS['train']
    assert tuple(dataset.CLASSES) == CLASSES
    info = dataset.get_data_info(0)
    assert f'/{CLASSES[info["gt_label"]]}/' in info['img_path']


def test_coco_layout_is_read_by_pycocotools_and_masks_fit_the_label_maps(folder):
    from pycocotools.coco import COCO

    for split, ade_split in (('train', 'training'), ('val', 'validation')):
        coco = COCO(str(folder / f'coco/annotations/instances_{split}2017.json'))
        assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        assert len(coco.getImgIds()) == COUNTS[split]
        for image in coco.loadImgs(coco.getImgIds()):
            assert (folder / f'coco/{split}2017' / image['file_name']).is_file()
            name = f'{image["id"]:06d}.png'
            labels = cv2.imread(str(folder / f'ade20k/annotations/{ade_split}/{name}'), cv2.IMREAD_UNCHANGED)
            assert labels.shape == (64, 64)
            expected = np.ones((64, 64), np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(image['id'])):
                mask = coco.annToMask(annotation).astype(bool)
                assert mask.sum() == annotation['area']
                ys, xs = np.nonzero(mask)
                box = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
                assert annotation['bbox'] == box
                expected[mask] = annotation['category_id'] + 1
            assert np.array_equal(labels, expected)


def test_the_same_settings_are_left_alone_and_others_are_not_overwritten(folder, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob('*')}
    write_shapes(folder, COUNTS, seed=3)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob('*')} == before
    with pytest.raises(FileExistsError, match='shapes of other settings'):
        write_shapes(folder, COUNTS, seed=5)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/photo.jpg').touch()
    with pytest.raises(FileExistsError, match='other files'):
        write_shapes(tmp_path / 'mine', COUNTS)
    assert (tmp_path / 'mine/photo.jpg').exists()


def test_an_interrupted_run_leaves_no_half_folder(tmp_path, monkeypatch):
    from vik_mm.datasets import shapes

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shapes, '_write_image', interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_shapes(tmp_path / 'shapes', COUNTS)
    assert not (tmp_path / 'shapes').exists()
    write_shapes(tmp_path / 'shapes', dict(val=2))
    assert [p.name for p in tmp_path.iterdir()] == ['shapes']


@pytest.mark.parametrize(
    ('call', 'text'),
    [
        (lambda path: write_shapes(path, dict(training=3)), "'training'.*is unknown"),
        (lambda path: write_shapes(path, dict(train=3), ['voc']), "'voc'.*is unknown"),
        (lambda path: draw_scene(0, size=16), 'size=16'),
        (lambda path: draw_scene(0, max_distractors=-1), 'max_distractors=-1'),
    ],
    ids=['split', 'layout', 'size', 'distractors'],
)
def test_bad_arguments_are_named(tmp_path, call, text):
    with pytest.raises(ValueError, match=text):
        call(tmp_path / 'none')


def test_settings_are_recorded_beside_the_data(folder):
    assert json.loads((folder / 'shapes.json').read_text())['num_scenes'] == COUNTS
