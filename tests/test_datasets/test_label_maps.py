"""Label maps that would train nothing are refused, with what to do; the log says what is used."""

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from vik_mm.datasets import label_maps
from vik_mm.datasets.summary import check_while_reading, summarise
from vik_mm.errors import BadInputError


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')
    check_while_reading()
    yield
    init_default_scope('mmpretrain')


@pytest.fixture
def judge(tmp_path):
    """Write label maps and judge them as a data set."""

    def write(folder, name, picture):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / folder / name)

    def make(maps, num_classes=2, ignore_index=255, images=None, **options):
        for k in range(images or len(maps)):
            write('images', f'{k}.png', np.zeros((8, 8, 3), np.uint8))
        for k, labels in enumerate(maps):
            write('maps', f'{k}.png', labels)
        dataset = DATASETS.build(
            dict(
                type='BaseSegDataset',
                data_root=str(tmp_path),
                data_prefix=dict(img_path='images', seg_map_path='maps'),
                metainfo=dict(classes=[f'class {k}' for k in range(num_classes)]),
                pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
                **dict(img_suffix='.png', serialize_data=False) | options,
            )
        )
        return summarise(dataset, num_classes, ignore_index)

    return make


def labels(*values):
    """A map of these labels in stripes."""
    return np.tile(np.array(values, np.uint8).repeat(4), (8, 1))


def test_maps_of_0_and_255_are_refused_with_the_command_that_recodes_them(judge, tmp_path):
    with pytest.raises(BadInputError) as error:
        judge([labels(0, 255)] * 3)
    assert f'label maps in {tmp_path}/maps hold 0 and 255 only, and 255 is ignored: class 1 never occurs' in str(
        error.value
    )
    command = str(error.value).split('python -c "')[1].rsplit('"', 1)[0].replace('COPY', f'{tmp_path}/maps')
    exec(command, {})
    assert set(np.unique(cv2.imread(str(tmp_path / 'maps/0.png'), cv2.IMREAD_UNCHANGED))) == {0, 1}


def test_reduce_zero_label_of_two_classes_is_refused(judge):
    with pytest.raises(BadInputError, match='set reduce_zero_label=False'):
        judge([labels(0, 1)], reduce_zero_label=True)


def test_one_map_with_the_class_is_enough_however_many_there_are(judge, monkeypatch):
    monkeypatch.setattr(label_maps, 'SAMPLE_SIZE', 3)
    found = judge([*[labels(0, 255)] * 11, labels(0, 1), *[labels(0, 255)] * 4])
    assert 'label maps looked at' in found.used
    with pytest.raises(BadInputError, match='class 1 never occurs'):
        judge([labels(0, 255)] * 16)


def test_a_sample_is_spread_over_the_data_set_and_the_same_each_time():
    first = label_maps._spread(20_000, 200)
    assert np.array_equal(first, label_maps._spread(20_000, 200))
    assert np.array_equal(np.sort(first), np.arange(20_000))
    assert all(100 * k <= index < 100 * (k + 1) for k, index in enumerate(first[:200]))


def test_all_pixels_ignored_is_refused_in_training_and_said_in_testing(judge):
    with pytest.raises(BadInputError, match='every pixel of the label maps in .* is ignored'):
        judge([labels(255)] * 2)
    assert 'every pixel' in judge([labels(255)] * 2, test_mode=True).warnings[0]


@pytest.mark.parametrize(
    ('colours', 'remedy'),
    [
        ([[[9, 0, 0], [0, 9, 0]]], 'it has 2 different colours'),
        ([[[1, 1, 1], [0, 0, 0]]], 'the three channels are equal'),
    ],
    ids=['colours', 'grey'],
)
def test_pictures_are_told_from_label_maps(judge, colours, remedy):
    with pytest.raises(BadInputError, match=f'maps/0.png has 3 channels; .*must have one channel.*{remedy}'):
        judge([np.tile(np.array(colours, np.uint8), (4, 2, 1))])


def test_a_palette_is_one_channel(judge, tmp_path):
    judge([labels(0, 1)])
    picture = Image.fromarray(labels(0, 1), mode='P')
    picture.putpalette([0, 0, 0, 200, 0, 0])
    picture.save(tmp_path / 'maps/0.png')
    assert judge([], images=1).warnings == []


def test_values_beyond_8_bits_are_refused(judge):
    with pytest.raises(BadInputError, match='holds the value 257; MMSegmentation reads label maps with 8 bits'):
        judge([np.full((8, 8), 257, np.uint16)])


def test_labels_that_are_no_class_are_refused_before_training(judge):
    with pytest.raises(BadInputError, match='1.png holds the label 5, and the model has classes 0 to 1'):
        judge([labels(0, 1), labels(0, 5)])


def test_the_lines_name_classes_that_never_occur_and_images_without_maps(judge, tmp_path):
    found = judge([labels(0, 2), labels(0, 255)], num_classes=4, images=3)
    used, left_out = found.lines('train')
    share = '25.0% of the pixels are ignored in the 2 label maps looked at'
    assert used == f'train: 3 images, 4 classes ({tmp_path}/images); {share}'
    assert left_out == f'train: left out: 1 image without a label map ({tmp_path}/maps/2.png)'
    assert found.warnings == ['2 of 4 classes never occur: the label maps looked at have no pixel of class 1, class 3']


def test_no_map_at_all_and_a_missing_one_in_validation_are_refused(judge):
    with pytest.raises(BadInputError, match='3 of 3 images have no label map: .*correct data_prefix.seg_map_path'):
        judge([], images=3)
    with pytest.raises(BadInputError, match='1 of 3 images have no label map'):
        judge([labels(0, 1)] * 2, images=3, test_mode=True)


def test_a_suffix_that_no_image_has_is_named(judge, tmp_path):
    with pytest.raises(
        BadInputError, match=r'images holds no image: BaseSegDataset reads \*.jpg, and there are \*.png; set img'
    ):
        judge([labels(0, 1)], img_suffix='.jpg')
