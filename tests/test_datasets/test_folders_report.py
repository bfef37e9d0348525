"""What people see of their folder: text, and pictures with the truth drawn in."""

import numpy as np
import pytest
from data_formats import (
    CLASSES,
    make_pictures,
    state_of,
    write_coco,
    write_imagefolder,
    write_masks,
)
from PIL import Image

from vik_mm.datasets.folders import FORMATS, TASKS, look
from vik_mm.datasets.folders.contact_sheet import draw_sheets
from vik_mm.datasets.folders.report import describe

PAIR = ('images/{split}', 'masks/{split}')


@pytest.fixture(scope='module')
def pictures():
    return make_pictures()


def test_the_tool_prints_counts_and_problems_and_draws_a_sheet_for_each_split(pictures, tmp_path, call_tool):
    root = tmp_path / 'my data'
    write_coco(root, pictures)
    (root / 'train2017' / 'scene 0.png').unlink()
    before = state_of(root)
    code, text = call_tool('data/look.py', root, '--out', tmp_path / 'out')
    assert not code, text
    assert 'instance, format coco, 8 images, 3 classes' in text
    assert 'images that are not there, left out: 1 (scene 0.png of annotations/instances_train2017.json)' in text
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['train.png', 'val.png']
    assert state_of(root) == before


@pytest.mark.parametrize(
    'write',
    [
        write_imagefolder,
        write_coco,
        lambda root, pictures: write_coco(root, pictures, with_outlines=False),
        lambda root, pictures: write_masks(root, pictures, PAIR, table='names'),
    ],
    ids=TASKS[:1] + ('instance', 'detection', 'segmentation'),
)
def test_the_truth_is_drawn_in_the_colours_of_the_classes(write, pictures, tmp_path):
    write(tmp_path / 'data', pictures)
    found = look(tmp_path / 'data')
    sheets = draw_sheets(found, tmp_path / 'out', num_images=5)
    assert [path.stem for path in sheets] == ['train', 'val']
    with Image.open(sheets[0]) as image:
        sheet = np.asarray(image)
    assert sheet.shape[1] == 4 * 328 + 8 and (sheet == 255).all(-1).mean() < 0.9
    text = '\n'.join(describe(found))
    assert all(name in text for name in CLASSES) and 'image sizes, width x height: 96 x 64, all of them' in text


def test_the_tool_ends_with_a_line_on_what_cannot_be_read(tmp_path, call_tool):
    code, text = call_tool('data/look.py', tmp_path / 'nowhere')
    assert code == f'error: {tmp_path / "nowhere"} does not exist; name the folder that holds your data'
    assert call_tool('data/look.py', tmp_path, '--out', tmp_path / 'x')[0].startswith('error: --out')


def test_the_tool_offers_what_the_package_knows(load_tool):
    tool = load_tool('data/look.py')
    assert (tuple(FORMATS), TASKS) == (tool.FORMATS, tool.TASKS)
