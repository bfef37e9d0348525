"""Prediction in windows, from the command line to the model: the same as whole where it can be, and bounded."""

import types

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from pictures import PIXELS, write

from vik_mm.errors import BadInputError
from vik_mm.inference import Model, tiling
from vik_mm.inference.tiling import predict_content

LARGE = np.tile(PIXELS, (4, 3, 1))  # 200 x 273


@pytest.fixture
def make_model(make_config, checkpoint):
    def make(task):
        config = make_config(task)
        return Model(Config.fromfile(config), checkpoint(config))

    return make


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_a_picture_that_fits_one_tile_is_predicted_on_as_a_whole(make_model, task):
    model = make_model(task)
    whole, tiled = (model.predict(PIXELS, score_thr=0, tile=tile)[0] for tile in (None, 91))
    assert whole.to_dict() == tiled.to_dict()


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_no_larger_part_of_a_picture_is_computed_than_a_batch_of_tiles(make_model, task):
    model = make_model(task)
    seen = []
    network = model._predictor.model
    network.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    (result,) = model.predict(LARGE, batch_size=2, score_thr=0, tile=64, overlap=0.25)
    assert result.size == LARGE.shape[:2]
    assert {shape[2:] for shape in seen} == {(64, 64)} and max(shape[0] for shape in seen) == 2
    assert sum(shape[0] for shape in seen) == 4 * 6
    alone = model.predict(LARGE, score_thr=0, tile=64, overlap=0.25)[0]
    assert len(alone) == len(result)
    if task == 'segmentation':
        assert result.segmentation.shape == LARGE.shape[:2]
        assert (alone.segmentation == result.segmentation).mean() > 0.999  # rounding of another batch size


@pytest.mark.parametrize('shape', [(120, 300), (300, 120)], ids=['wide', 'high'])
def test_label_maps_are_put_where_their_windows_are(shape):
    """A network that knows each pixel's class from its colour gives the map of the whole picture."""
    truth = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)

    def network(pictures, names):
        for picture in pictures:
            logits = torch.from_numpy(np.eye(4, dtype=np.float32)[picture['img'][..., 0]]).permute(2, 0, 1)
            yield types.SimpleNamespace(seg_logits=types.SimpleNamespace(data=logits))

    network.model = None
    picture = dict(img=np.repeat(truth[..., None], 3, axis=-1))
    content = predict_content(network, 'segmentation', picture, 'a', tile=64, overlap=0.2, batch_size=3)
    assert (content['segmentation'] == truth).all()


def test_an_object_across_windows_comes_out_once_at_its_place():
    """A detector that boxes all pixels that are not black."""
    image = np.zeros((200, 300, 3), np.uint8)
    image[50:90, 40:150] = 255
    image[150:170, 200:220] = 255

    def network(pictures, names):
        for picture in pictures:
            mask = picture['img'][..., 0] > 0
            rows, columns = np.nonzero(mask)
            count = int(len(rows) > 0)
            box = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if count else []
            found = InstanceData(
                bboxes=torch.tensor(box, dtype=torch.float32).reshape(-1, 4),
                scores=torch.full((count,), 0.9),
                labels=torch.zeros(count, dtype=torch.long),
                masks=torch.from_numpy(mask[None].repeat(count, 0)),
            )
            yield types.SimpleNamespace(pred_instances=found)

    content = predict_content(network, 'detection', dict(img=image), 'a', tile=80, overlap=0.25, batch_size=1)
    assert sorted(content['boxes'].tolist()) == [[40, 50, 150, 90], [200, 150, 220, 170]]


def test_objects_of_a_low_score_are_left_out_before_anything_is_done_with_them(monkeypatch):
    def network(pictures, names):
        for picture in pictures:
            size = picture['img'].shape[:2]
            found = InstanceData(
                bboxes=torch.tensor([[2.0, 2, 9, 9], [3, 3, 8, 8], [1, 1, 5, 5]]),
                scores=torch.tensor([0.9, 0.2, float('nan')]),
                labels=torch.zeros(3, dtype=torch.long),
                masks=torch.ones(3, *size, dtype=torch.bool),
            )
            yield types.SimpleNamespace(pred_instances=found)

    joined = []
    monkeypatch.setattr(tiling, 'join_pieces', lambda pieces, *size: joined.append(pieces))
    predict_content(network, 'detection', dict(img=LARGE), 'a', tile=64, overlap=0.2, batch_size=1, score_thr=0.3)
    (pieces,) = joined
    assert {len(scores) for scores in pieces.scores} == {2}  # a score that is no number is shown, not hidden
    assert len(pieces.masks) == 2 * len(pieces.windows)


def test_a_classifier_refuses_tiles_with_a_reason(images, infer, make_model):
    with pytest.raises(BadInputError, match='one class for the whole picture'):
        make_model('classification').predict(PIXELS, tile=64)
    write(images / 'a.png')
    code, _, _ = infer(images, '--tile', 64)
    assert 'one class for the whole picture' in code


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_infer_predicts_in_tiles(images, infer, task):
    write(images / 'a.png', LARGE)
    options = ('--tile', 64, '--overlap', 0.25, '--tile-batch-size', 4)
    code, text, records = infer(images, *options, '--score-thr', 0.9, task=task)
    assert code == 0, text
    assert not set(records['a.png']) & {'error'}
    code, _, _ = infer(images, '--tile', 64, '--overlap', 1, task=task)
    assert code == 'error: --overlap 1.0 must be a share from 0 to 0.9, such as 0.2'


@pytest.mark.parametrize('task, figure', [('detection', 'coco/segm_mAP:'), ('segmentation', 'mIoU:')])
def test_testing_in_tiles_that_hold_the_picture_gives_the_figures_of_the_whole(
    tmp_path, make_config, checkpoint, call_tool, task, figure
):
    config = make_config(task, 'test_dataloader["dataset"]["indices"] = 2\n')
    weights = checkpoint(config)
    figures = []
    for options in ([], ['--tile', 64], ['--tile', 48]):
        code, text = call_tool('test.py', config, weights, '--work-dir', tmp_path / 'test', *options)
        assert code is None, code
        figures.append(next(line for line in text.splitlines() if figure in line).split(figure)[1].split()[0])
    assert figures[0] == figures[1]
    code, _ = call_tool('test.py', config, weights, '--tile', 64, '--show-dir', tmp_path / 'shown')
    assert code.startswith('error: --show-dir draws no predictions in windows')
