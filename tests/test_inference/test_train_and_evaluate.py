"""Training and evaluation from Python: what the tools do, with a model's own weights."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from vik_mm.datasets.shapes import CLASSES
from vik_mm.errors import BadInputError
from vik_mm.evaluation import Evaluation, evaluate
from vik_mm.inference import Model
from vik_mm.inference.train_and_evaluate import training_options

_TINY = dict(depths=(1, 1, 1), embed_dims=(8, 8, 16))


@pytest.fixture
def model(make_config, checkpoint, tmp_path, monkeypatch):
    """A small classifier, untrained; what it writes goes into the test's folder."""
    monkeypatch.chdir(tmp_path)
    config = make_config('classification', f'model = dict(backbone=dict(arch={_TINY}), head=dict(in_channels=16))\n')
    content = torch.load(weights := checkpoint(config))
    torch.save(dict(content, meta=dict(dataset_meta=dict(classes=CLASSES))), weights)
    return Model(Config.fromfile(config), weights, device='cpu')


def weights_of(model):
    return model._predictor.model.state_dict()


def test_training_goes_on_with_all_weights_and_gives_the_best_checkpoint(model, tmp_path):
    before = {name: value.clone() for name, value in weights_of(model).items()}
    options = dict(work_dir=str(tmp_path / 'further'), epochs=2, lr=1e-9, save_best=True)
    trained = model.train(**options, cfg_options={'randomness.seed': 0})
    assert Path(trained.checkpoint).parent == tmp_path / 'further' and Path(trained.checkpoint).name.startswith('best_')
    assert trained.cfg.load_from == model.checkpoint
    # A learning rate of almost nothing leaves the weights that it began with.
    for name, value in weights_of(trained).items():
        if 'running' not in name and value.is_floating_point():
            assert torch.allclose(value, before[name], atol=1e-6), name
    assert all(torch.equal(value, before[name]) for name, value in weights_of(model).items())
    assert trained.classes == model.classes and trained.device == model.device


def test_training_on_a_folder_begins_with_the_backbone_and_takes_the_folders_classes(model, shapes_folder, tmp_path):
    options = dict(work_dir=str(tmp_path / 'mine'), epochs=1, batch=8, lr=1e-9)
    loaders = {f'{split}_dataloader.num_workers': 0 for split in ('train', 'val')}
    trained = model.train(shapes_folder / 'imagenet', **options, cfg_options=loaders)
    assert Path(trained.checkpoint).parent == tmp_path / 'mine' and (tmp_path / 'mine/config.py').is_file()
    assert trained.cfg.model.backbone.init_cfg.checkpoint == model.checkpoint
    assert trained.cfg.model.backbone.arch == _TINY
    before, after = weights_of(model), weights_of(trained)
    stem = next(name for name in before if name.startswith('backbone.') and before[name].ndim == 4)
    assert torch.allclose(after[stem], before[stem], atol=1e-6)
    assert trained.classes == model.classes == tuple(CLASSES)


@pytest.mark.parametrize(
    'options, match',
    [
        (dict(epoch=1), 'epoch is no option of a training; the options are .*epochs'),
        (dict(epochs=0), 'epochs 0 must be a whole number from 1 up'),
        (dict(time='soon'), "'soon' is no time"),
        (dict(log='paper'), "invalid choice: 'paper'"),
        (dict(config='a.py'), 'config is no option'),
        (dict(backbone='vik-z'), "backbone 'vik-z' is unknown"),
        (dict(data='nowhere'), 'nowhere does not exist'),
        (dict(image_size=64), '--image-size goes with --data FOLDER'),
    ],
    ids=str,
)
def test_wrong_options_of_a_training_are_refused_at_once(model, tmp_path, options, match):
    before = set(tmp_path.iterdir())
    with pytest.raises((BadInputError, FileNotFoundError), match=match):
        model.train(**options)
    assert set(tmp_path.iterdir()) == before


def test_options_are_read_as_the_command_line_reads_them():
    args = training_options(
        dict(
            time='1h30m', ema=True, early_stop=True, freeze=2, log=['tensorboard'], batch='auto', cfg_options=dict(a=1)
        )
    )
    assert (args.time, args.ema, args.early_stop, args.freeze) == (5400, True, 5, 2)
    assert (args.log, args.batch, args.cfg_options, args.tta) == (['tensorboard'], 'auto', dict(a=1), False)


def test_an_evaluation_has_the_figures_of_the_tool_and_writes_the_report(model, tmp_path):
    before = model.cfg.to_dict()
    files = set(tmp_path.iterdir())
    result = model.evaluate(out=tmp_path / 'report', num_pictures=2)
    assert isinstance(result, Evaluation) and result.split == 'test' and result.checkpoint == model.checkpoint
    assert json.loads((tmp_path / 'report/figures.json').read_text())['images'] == 8
    assert (tmp_path / 'report/report.html').is_file()
    assert model.cfg.to_dict() == before and set(tmp_path.iterdir()) - files == {tmp_path / 'report'}
    model.cfg.work_dir = str(tmp_path / 'run')
    assert evaluate(model.cfg, model.checkpoint).to_json() == result.to_json()


def test_an_evaluation_on_a_folder_takes_its_pictures_and_refuses_other_classes(model, shapes_folder):
    result = model.evaluate(shapes_folder / 'imagenet', split='val')
    assert len(result.records) == 8 and result.classes == list(model.classes)
    model.dataset_meta['classes'] = ('a', 'b')
    with pytest.raises(BadInputError, match='the model has a, b: a model can only be judged on its own classes'):
        model.evaluate(shapes_folder / 'imagenet')
