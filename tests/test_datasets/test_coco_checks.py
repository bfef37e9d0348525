"""COCO files that would train nothing, or end in a riddle, are refused; of the others the log says what is used."""

import json

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope

from vik_mm.datasets.summary import check_while_reading, summarise
from vik_mm.errors import BadInputError

NAN, INF = float('nan'), float('inf')
TRIANGLE = [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]]


@pytest.fixture(autouse=True)
def scope():
    yield
    init_default_scope('mmpretrain')


@pytest.fixture
def content():
    """Four images with two objects each, and one without."""
    images = [dict(id=k, file_name=f'{k}.png', width=40, height=30) for k in range(5)]
    annotations = [
        dict(id=10 * k + j, image_id=k, category_id=7 + j, bbox=[2, 3, 10, 10], area=100, segmentation=TRIANGLE)
        for k in range(4)
        for j in range(2)
    ]
    return dict(
        images=images, annotations=annotations, categories=[dict(id=7, name='Scratch'), dict(id=8, name='dent')]
    )


@pytest.fixture
def coco(tmp_path, content):
    """Write a COCO data set and read it as MMDetection does."""

    def make(text=None, classes=('Scratch', 'dent'), with_mask=False, **options):
        init_default_scope('mmdet')
        check_while_reading()
        for image in content.get('images', ()):
            (tmp_path / str(image.get('file_name'))).touch()
        (tmp_path / 'train.json').write_text(json.dumps(content) if text is None else text)
        options.setdefault('data_prefix', dict(img=f'{tmp_path}/'))
        options = dict(filter_cfg=dict(filter_empty_gt=True, min_size=8), serialize_data=False) | options
        loading = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask)]
        return DATASETS.build(
            dict(
                type='CocoDataset',
                ann_file=str(tmp_path / 'train.json'),
                metainfo=dict(classes=classes),
                pipeline=loading,
                **options,
            )
        )

    return make


def summary(dataset, num_classes=2):
    return summarise(dataset, num_classes, 255)


def test_two_lines_say_what_is_used_and_what_is_not(coco, content, tmp_path):
    objects = content['annotations']
    objects[0]['bbox'] = [2, 3, 0.4, 10]
    objects[1]['iscrowd'] = 1
    objects[3]['category_id'] = 9
    content['categories'].append(dict(id=9, name='rust'))
    content['images'][3]['width'] = 7
    used, left_out = summary(coco()).lines('train')
    assert used == f'train: 3 of 5 images, 3 of 8 objects, 2 classes ({tmp_path}/train.json)'
    assert left_out == (
        'train: left out: 1 image without objects, 1 image with a side below 8 pixels (filter_cfg), '
        '1 object of other categories (annotation 11), 2 objects on images that are left out (annotation 30, ...), '
        '1 object smaller than a pixel (annotation 0), 1 object marked as a crowd (annotation 1)'
    )


def test_the_lines_agree_with_what_mmdetection_keeps(coco, content):
    draw = np.random.default_rng(0)
    values = [NAN, -INF, -5, 0, 0.5, 3, 25, 1e30]
    for k in range(200):
        box = [float(v) for v in draw.choice(values, 4)]
        content['annotations'].append(
            dict(
                id=1000 + k,
                image_id=int(draw.integers(0, 5)),
                category_id=7,
                bbox=box,
                area=float(draw.choice([0, 9])),
            )
        )
    dataset = coco()
    kept = sum(len(dataset.get_data_info(k)['instances']) for k in range(len(dataset)))
    assert f', {kept} of 208 objects, ' in summary(dataset).used


def test_images_without_objects_are_counted_where_they_are_kept(coco):
    found = summary(coco(filter_cfg=None))
    assert '5 images, 8 objects, 1 of the images without objects' in found.used
    assert found.lines('val')[1] == 'val: left out: nothing'


def test_images_on_other_file_systems_are_counted_and_not_looked_for(coco):
    assert '4 of 5 images, 8 objects' in summary(coco(data_prefix=dict(img='s3://bucket/'))).used


@pytest.mark.parametrize(
    ('box', 'reason'),
    [
        ([NAN] * 4, '8 objects with NaN in their box (annotation 0, ...)'),
        ([5, 5, -3, 4], '8 objects with a box of negative or no size'),
        ([1e308, 1e308, 5, 5], '8 objects with a box outside the image'),
        ([1, 1, 0.5, 0.5], '8 objects smaller than a pixel'),
    ],
    ids=['nan', 'negative', 'far away', 'tiny'],
)
def test_boxes_of_which_none_is_used_are_refused(coco, content, box, reason):
    for annotation in content['annotations']:
        annotation['bbox'] = box
    with pytest.raises(BadInputError, match='train.json holds nothing to train on') as error:
        summary(coco())
    assert reason in str(error.value)


@pytest.mark.parametrize('outline', [[], [[1, 2, 3]], [[1, 2, 3, 4, 5, 6, 7]]], ids=['empty', 'short', 'odd'])
def test_outlines_of_which_none_is_used_are_refused_where_masks_are_loaded(coco, content, outline):
    for annotation in content['annotations']:
        annotation['segmentation'] = outline
    assert '8 objects' in summary(coco()).used
    with pytest.raises(BadInputError, match='8 objects without an outline of three points or more'):
        summary(coco(with_mask=True))


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('bbox', ['1', '2', '3', '4'], r'"bbox" of annotation 11 is \[\'1\', .*must be four numbers.*1 of 8'),
        ('bbox', 'long', '"bbox" of annotation 11 is \'long\''),
        ('bbox', [1, 2, 3], r'"bbox" of annotation 11 is \[1, 2, 3\]'),
        ('bbox', None, '"bbox" of annotation 11 is None'),
        ('bbox', [0, 0, INF, INF], r'"bbox" of annotation 11 is .*infinite in float32'),
        ('bbox', [0, 0, 1e308, 9], r'"bbox" of annotation 11 is .*infinite in float32'),
        ('bbox', [0, 0, 10**400, 9], r'"bbox" of annotation 11 is .*infinite in float32'),
        ('area', 'big', '"area" of annotation 11 is \'big\'; it must be a number'),
        ('id', 10, 'two annotations have the id 10'),
        ('image_id', [1], 'annotation number 3 must have a number or a text as "image_id"'),
    ],
    ids=['texts', 'text', 'three', 'null', 'infinite', '1e308', '10**400', 'area', 'id', 'image'],
)
def test_a_value_that_cannot_be_is_named_with_its_annotation(coco, content, key, value, message):
    content['annotations'][3][key] = value
    with pytest.raises(BadInputError, match=message):
        summary(coco())


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"images": [{"id": 1', 'cannot be read as a COCO annotation file'),
        ('[' * 100_000 + ']' * 100_000, 'it is nested too deep for Python'),
        ('{"info": ' + '{"a":' * 100_000 + '1' + '}' * 100_000 + '}', 'it is nested too deep for Python'),
        ('[]', 'cannot be read as a COCO annotation file'),
        ('{"shapes": []}', 'is not a COCO annotation file: its keys are shapes'),
        ('{"images": [], "annotations": []}', '"categories" must be a list'),
    ],
    ids=['cut off', 'deep', 'deep objects', 'list', 'other format', 'no categories'],
)
def test_a_file_that_is_none_of_coco_is_named(coco, text, message):
    with pytest.raises(BadInputError, match=message):
        coco(text)


def test_no_annotations_are_refused_in_training_and_legal_in_testing(coco, content):
    content['annotations'].clear()
    for is_serialized in (True, False):
        with pytest.raises(BadInputError, match='nothing to train on: left out: 5 images without objects'):
            summary(coco(serialize_data=is_serialized))
    with pytest.raises(BadInputError, match='nothing to train on'):
        summary(coco(filter_cfg=None))
    assert '5 images, 0 objects' in summary(coco(test_mode=True)).used


def test_classes_of_which_the_file_has_none_come_with_the_line_to_paste(coco):
    with pytest.raises(BadInputError) as error:
        coco(classes=('scratch ', 'hole'))
    assert 'the data set has scratch , hole, the file has Scratch, dent' in str(error.value)
    assert 'did you mean "Scratch" for "scratch "?' in str(error.value)
    assert "metainfo=dict(classes=('Scratch', 'dent'))" in str(error.value)
    assert 'num_classes=2' in str(error.value)


def test_another_order_of_classes_and_absent_ones_are_said(coco, content):
    for annotation in content['annotations']:
        annotation['category_id'] = 7
    found = summary(coco(classes=('dent', 'Scratch')))
    assert found.classes == ['Scratch', 'dent']
    order, absent = found.warnings
    assert "metainfo=dict(classes=('Scratch', 'dent'))" in order
    assert absent == '1 of 2 classes never occur: the data set has no object of dent'


def test_data_sets_with_a_parser_of_their_own_are_not_judged(coco, content):
    init_default_scope('mmdet')
    kind = DATASETS.get('mmdet.CocoDataset')

    class Polar(kind):
        def parse_data_info(self, raw_data_info):
            image = raw_data_info['raw_img_info']
            path = self.data_prefix['img'] + image['file_name']
            return dict(img_path=path, img_id=image['img_id'], width=9, height=9, instances=[{}])

    content['annotations'][0]['bbox'] = dict(angle=3)
    init = coco(text=json.dumps({**content, 'annotations': []}), test_mode=True)
    with open(init.ann_file, 'w') as file:
        json.dump(content, file)
    dataset = Polar(ann_file=init.ann_file, data_prefix=init.data_prefix, metainfo=init.metainfo, filter_cfg=None)
    assert '5 images, 5 objects' in summary(dataset).used
