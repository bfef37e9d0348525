"""tools/train.py --data, and where weights come from."""

import json

import pytest
import torch

import vik_mm
import vik_mm.datasets.folders
from vik_mm.errors import BadInputError
from vik_mm.recipes.weights import check_source, find_source
from vik_mm.recipes.writing import write_config


@pytest.fixture
def train(call_tool, prepare_shapes, monkeypatch, shapes_folder):
    def run(task, *args, **options):
        data = prepare_shapes(task, **options)
        monkeypatch.setattr(vik_mm.datasets.folders, 'prepare', lambda *_, **__: data, raising=False)
        return call_tool('train.py', '--data', shapes_folder, *args)

    return run


def test_a_folder_is_trained_on_and_the_config_runs_again(train, call_tool, tmp_path):
    code, text = train('classification', '--epochs', 1, '--image-size', 64, '--ema', '--batch', 8)
    assert not code, text[-3000:]
    path = tmp_path / 'work_dirs/shapes/config.py'
    assert (
        text.index('16 images to train')
        < text.index('CONFIG: work_dirs/shapes/config.py')
        < text.index('WEIGHTS: RANDOM')
    )
    before = path.read_text()
    assert 'EMAHook' in before and 'epochs = 1' in before
    path.write_text(before.replace('lr = ', 'lr = 0.5 * '))
    code, text = train('classification')
    assert 'config.py was edited, and is not overwritten' in code
    code, text = call_tool('test.py', path, path.with_name('best.pth'))
    assert not code and 'accuracy/top1' in text  # of averaged weights
    code, text = call_tool('train.py', path)
    assert not code and 'lr = 0.5 * ' in path.read_text() and path.with_name('config_as_run.py').is_file()
    assert 'WEIGHTS: RANDOM' in text
    best = path.with_name('best.pth')
    (own,) = path.parent.glob('best_*.pth')
    assert best.samefile(own) and vik_mm.load(best).classes
    assert f'report: {path.parent}/report_val/report.html' in text.replace('report: work', f'report: {tmp_path}/work')


def test_a_training_ends_with_a_report_and_a_best_checkpoint_of_a_fixed_name(train, call_tool, tmp_path):
    code, text = train('detection', '--epochs', 1, '--image-size', 64, '--batch', 8, '--backbone', 'vik-t')
    assert not code, text[-3000:]
    folder = tmp_path / 'work_dirs/shapes'
    assert 'report: work_dirs/shapes/report_val/report.html' in text and 'checkpoint: ' in text
    page = (folder / 'report_val/report.html').read_text()
    figures = json.loads((folder / 'report_val/figures.json').read_text())
    assert figures and 'shapes: val split' in page
    assert {each.name for each in folder.glob('*.py')} == {'config.py', 'config_as_run.py'}
    # An untrained detector may have no figure that could call a checkpoint the best.
    (own,) = list(folder.glob('best_*.pth')) or [folder / 'epoch_1.pth']
    if own.name.startswith('best_'):
        assert (folder / 'best.pth').samefile(own)
        assert vik_mm.load(folder / 'best.pth').classes


@pytest.mark.parametrize('args', [['--no-validate'], ['--cfg-options', 'report=False']], ids=' '.join)
def test_no_report_where_nothing_is_validated_or_none_is_wanted(args, train, tmp_path):
    code, text = train('classification', '--epochs', 1, '--image-size', 64, '--batch', 16, *args)
    assert not code and 'report:' not in text
    assert not list(tmp_path.glob('work_dirs/shapes/report*')) and not (tmp_path / 'work_dirs/shapes/best.pth').exists()


def test_all_that_is_written_goes_into_the_work_dir_that_is_named(call_tool, shapes_folder, tmp_path):
    """What is refused in the folder of the data, where a user may well start, can so be put elsewhere."""
    out = tmp_path / 'out'
    options = ('--epochs', 1, '--image-size', 64, '--batch', 16, '--no-validate')
    code, text = call_tool('train.py', '--data', shapes_folder / 'imagenet', '--work-dir', out, *options)
    assert not code, text[-3000:]
    assert list(out.glob('data/*/splits.json')) and not (tmp_path / 'work_dirs').exists()


@pytest.mark.parametrize(
    'args, message',
    [
        ([__file__, '--data', '.'], 'both a config and --data are given'),
        ([], 'neither a config nor --data is given'),
        (['--data', 'nowhere'], '--data nowhere does not exist'),
        (['--data', '.', '--epochs', '0'], '--epochs 0 must be a whole number from 1 up'),
        (['--data', '.', '--lr', '-1'], '--lr -1.0 must be a number above 0'),
        (['--data', '.', '--time', 'soon'], "'soon' is no time; write it as 90s, 30m, 2h or 1h30m"),
        (['--data', '.', '--log', 'paper'], "invalid choice: 'paper'"),
        (['--data', '.', '--batch', 'big'], 'must be a whole number from 1 up, or auto'),
        (['--data', '.', '--pretrained', 'none.pth'], 'checkpoint none.pth does not exist'),
    ],
    ids=lambda value: '' if isinstance(value, str) else ' '.join(value),
)
def test_bad_input_is_answered_before_anything_is_imported(args, message, call_tool):
    code, text = call_tool('train.py', *args)
    assert message in f'{code}{text}'


class TestWeights:
    def save(self, path, names, make_vik, **options):
        weights = make_vik(**options).state_dict()
        torch.save(dict(state_dict={f'{names}{name}': value for name, value in weights.items()}), path)
        return str(path)

    @pytest.mark.parametrize('prefix', ['backbone.', ''])
    def test_of_a_model_and_of_a_backbone(self, prefix, prepare_shapes, make_vik, tmp_path):
        file = self.save(tmp_path / 'tiny.pth', prefix, make_vik, arch='tiny', img_size=64)
        source = find_source(file, tmp_path)
        cfg = write_config(prepare_shapes('detection'), tmp_path / 'config.py', pretrained=source)
        assert (
            cfg.model.backbone.init_cfg.checkpoint == file and cfg.model.backbone.init_cfg.get('prefix', '') == prefix
        )
        assert 'weights of the backbone (mmpretrain.ViK tiny) are in it' in check_source(source, cfg)
        assert cfg.optim_wrapper.constructor == 'LayerDecayOptimWrapperConstructor' and cfg.lr == 2e-4

    def test_of_the_release_are_converted(self, golden, prepare_shapes, tmp_path):
        torch.save(dict(state_dict=golden.weights('vik_small')), tmp_path / 'release.pth')
        source = find_source(str(tmp_path / 'release.pth'), tmp_path / 'work')
        assert (tmp_path / 'work/release_converted.pth').is_file() and 'converted' in source.note
        write_config(prepare_shapes('segmentation'), tmp_path / 'config.py', backbone='vik-s', pretrained=source)

    def test_nothing_that_fits(self, prepare_shapes, make_vik, tmp_path):
        other = find_source(self.save(tmp_path / 'small.pth', 'backbone.', make_vik, arch='small'), tmp_path)
        with pytest.raises(BadInputError, match='fit it .*name that one with --backbone'):
            write_config(prepare_shapes('detection'), tmp_path / 'config.py', pretrained=other)
        assert not (tmp_path / 'config.py').exists()
        torch.save(dict(state_dict=dict(a=torch.zeros(1))), tmp_path / 'a.pth')
        nothing = find_source(str(tmp_path / 'a.pth'), tmp_path)
        with pytest.raises(BadInputError, match='0 of .* fit it .it has a, ...'):
            write_config(prepare_shapes('detection'), tmp_path / 'config.py', pretrained=nothing)
