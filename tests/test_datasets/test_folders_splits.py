"""Splits of users' folders: given ones are kept, others drawn from a seed, each class in proportion."""

from collections import Counter

import pytest
from data_formats import make_pictures, save, text, write_imagefolder, write_masks, write_voc, write_yolo

from vik_mm.datasets.folders import look
from vik_mm.datasets.folders.folder_names import Place
from vik_mm.datasets.folders.samples import ObjectTruth, Sample
from vik_mm.datasets.folders.splits import draw
from vik_mm.errors import BadInputError


def labelled(numbers):
    return [Sample(f'{label}/{k}.jpg', 'train', label=label) for label, n in enumerate(numbers) for k in range(n)]


def test_a_drawn_split_has_each_class_in_proportion():
    drawn = Counter(sample.label for sample in draw(labelled([50, 20, 10, 1]), 0.2, 0))
    assert drawn == {0: 10, 1: 4, 2: 2}


def test_an_image_counts_for_its_rarest_class():
    box = (0, 0, 5, 5)
    common = [Sample(f'a{k}.jpg', None, objects=[ObjectTruth(0, box)]) for k in range(90)]
    rare = [Sample(f'b{k}.jpg', None, objects=[ObjectTruth(0, box), ObjectTruth(1, box)]) for k in range(10)]
    drawn = draw(common + rare, 0.2, 0)
    assert len(drawn) == 20 and sum(len(sample.objects) == 2 for sample in drawn) == 2


def test_the_seed_decides_and_a_new_image_moves_few_others():
    names = [{sample.image for sample in draw(labelled([40, 40]), 0.2, seed)} for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    more = {sample.image for sample in draw(labelled([42, 40]), 0.2, 0)}
    assert len(more ^ names[0]) <= 4


def test_equal_files_are_drawn_together(tmp_path):
    pictures = make_pictures(12, 0)
    write_imagefolder(tmp_path, pictures, has_splits=False)
    for path in list(tmp_path.rglob('*.PNG')):
        path.with_name(f'copy of {path.name}').write_bytes(path.read_bytes())
    found = look(tmp_path)
    assert found.of_split('val') and not any('byte for byte' in line for line in found.notes)


def test_a_test_split_is_kept_and_validation_is_drawn_from_training(tmp_path):
    write_masks(tmp_path, make_pictures(8, 3), ('{split}', '{split}annot'), table='names')
    for name in ('val', 'valannot'):
        (tmp_path / name).rename(tmp_path / name.replace('val', 'test'))
    found = look(tmp_path)
    assert {split: len(found.of_split(split)) for split in found.splits} == dict(train=6, val=2, test=3)
    assert not found.are_splits_given and any('the test split is kept' in line for line in found.notes)


def test_lists_of_images_are_splits(tmp_path):
    pictures = make_pictures(4, 2)
    for each in pictures:
        save(tmp_path / 'images' / f'{each.stem}.png', each.image)
        save(tmp_path / 'seg_maps' / f'{each.stem}.png', each.label_map)
    for split in ('train', 'val'):
        text(tmp_path / f'{split}.txt', '\n'.join(each.stem for each in pictures if each.split == split))
    found = look(tmp_path)
    assert {split: len(found.of_split(split)) for split in found.splits} == dict(train=4, val=2)


def test_an_image_in_two_lists_is_not_trained_on(tmp_path):
    pictures = make_pictures(4, 2)
    write_voc(tmp_path, pictures)
    with open(tmp_path / 'ImageSets/Main/train.txt', 'a') as file:
        file.write(f'\n{pictures[-1].stem}')
    found = look(tmp_path)
    assert {split: len(found.of_split(split)) for split in found.splits} == dict(train=4, val=2)
    assert any('images listed for train and val, used for val: 1' in line for line in found.notes)


def test_training_and_validation_in_the_same_folder_are_split(tmp_path):
    write_yolo(tmp_path, make_pictures(8, 0), names='')
    text(tmp_path / 'data.yaml', 'train: images/train\nval: images/train\nnames: [heart, star, cross]\n')
    found = look(tmp_path)
    assert len(found.of_split('val')) == 2 and not found.are_splits_given


def test_only_a_validation_split_is_an_error(tmp_path):
    write_imagefolder(tmp_path, make_pictures(0, 4))
    with pytest.raises(BadInputError, match='no images to train on'):
        look(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    for name in ('car', 'train', 'plane'):
        for k, each in enumerate(make_pictures(3, 0)):
            save(tmp_path / name / f'{k}{name}.png', each.image)
    assert look(tmp_path).classes == ('car', 'plane', 'train')


@pytest.mark.parametrize(
    ('image', 'truth'),
    [
        ('images/train', 'labels/train'),
        ('train/images', 'train/labels'),
        ('train', 'trainannot'),
        ('Val', 'val_labels'),
        ('img_dir/val', 'ann_dir/val'),
        ('leftImg8bit_trainvaltest/leftImg8bit/train/ulm', 'gtFine_trainvaltest/gtFine/train/ulm'),
        ('JPEGImages', 'SegmentationClass'),
        ('images/training', 'annotations/training'),
    ],
)
def test_folders_of_images_and_truth_belong_together(image, truth):
    assert Place(image).key == Place(truth).key
    assert Place(truth).is_truth and not Place(image).is_truth


def test_a_class_called_no_mask_is_no_folder_of_masks():
    assert not Place('no_mask').is_truth and not Place('with mask on').is_truth
