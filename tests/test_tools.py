"""The tools as a user runs them: processes, files, exit codes and messages."""

import json
import os
import pickle
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vik_mm.checkpoints import read_checkpoint

ROOT = Path(__file__).resolve().parent.parent


def weights(path):
    return read_checkpoint(path)['state_dict']


def test_train_resume_and_test_go_through(tmp_path, shapes_config, run_tool):
    work = tmp_path / 'work'
    first = run_tool('train.py', shapes_config, '--work-dir', work, '--resume', 'auto')
    assert 'nothing to resume' in first.text
    assert 'training starts fresh' in first.text
    assert (work / 'epoch_1.pth').is_file()
    assert 'accuracy/top1' in first.text
    assert 'OneDL' not in first.text

    options = ('--cfg-options', 'train_cfg.max_epochs=2')
    again = run_tool('train.py', shapes_config, '--work-dir', work, '--resume', *options)
    assert f'resuming from {work}/epoch_1.pth' in again.text
    assert 'CosineAnnealingLR) goes on as the checkpoint has it: end=1 (not 2)' in again.text
    assert 'Epoch(train) [2]' in again.text
    assert 'Epoch(train) [1]' not in again.text
    before, after = weights(work / 'epoch_1.pth'), weights(work / 'epoch_2.pth')
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    # What the Runner saves holds more than tensors; it must be readable as data.
    assert read_checkpoint(work / 'epoch_2.pth')['meta']['epoch'] == 2

    over = run_tool('train.py', shapes_config, '--work-dir', work, '--resume')
    assert 'nothing is left to train: the run ends after iteration 4, and the checkpoint is at iteration 8' in over.text

    pictures, out = tmp_path / 'pictures', tmp_path / 'out.pkl'
    result = run_tool(
        'test.py', shapes_config, work / 'epoch_2.pth', '--work-dir', work, '--out', out, '--show-dir', pictures
    )
    assert 'accuracy/top1' in result.text
    assert len(pickle.loads(out.read_bytes())) == 8
    assert len(list(pictures.rglob('*.png'))) == 8


def test_switched_off_head_answers_with_its_bias(tmp_path, shapes_config, shapes_folder, call_tool):
    from mmengine.config import Config
    from mmpretrain.registry import MODELS

    state = MODELS.build(Config.fromfile(shapes_config).model).state_dict()
    state['head.fc.bias'] = torch.arange(len(state['head.fc.bias']), 0.0, -1)
    path, out = tmp_path / 'model.pth', tmp_path / 'rows.csv'
    torch.save(dict(state_dict=state), path)
    call = ('analysis_tools/switch_off.py', shapes_config, path, '--metrics', 'accuracy/top1', '--out', out)
    code, text = call_tool(*call, '--zero', r'head\.fc\.weight', 'head')
    assert not code, text
    counts = [len(list(folder.iterdir())) for folder in sorted((shapes_folder / 'imagenet/test').iterdir())]
    rows = [line.split(',') for line in out.read_text().split()]
    assert rows[0] == ['zero', 'tensors', 'accuracy/top1']
    assert [row[:2] for row in rows[1:]] == [['nothing', '0'], [r'head\.fc\.weight', '1'], ['head', '2']]
    assert float(rows[2][2]) == pytest.approx(100 * counts[0] / sum(counts), abs=1e-3)

    code, _ = call_tool(*call, '--zero', 'no_such_part')
    assert "--zero 'no_such_part' names none of the weights" in str(code)


def test_slurm_scripts_hand_their_arguments_to_srun(tmp_path, run_tool):
    srun = tmp_path / 'bin/srun'
    srun.parent.mkdir()
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    env = dict(PATH=f'{srun.parent}:{os.environ["PATH"]}', GPUS='16', SRUN_ARGS='--qos=high --mem=64G')
    lines = run_tool('slurm_train.sh', 'gpu', 'vik', 'config.py', '--amp', env=env).stdout.split('\n')
    for expected in ('--partition=gpu', '--job-name=vik', '--ntasks=16', '--ntasks-per-node=8', '--qos=high', '--amp'):
        assert expected in lines
    assert lines[-5:-1] == ['config.py', '--amp', '--launcher', 'slurm']
    lines = run_tool('slurm_test.sh', 'gpu', 'vik', 'config.py', 'a.pth', env=env).stdout.split('\n')
    assert lines[-5:-1] == ['config.py', 'a.pth', '--launcher', 'slurm']


def test_slurm_launcher_without_a_gpu_reads_slurms_variables(tmp_path, shapes_config, run_tool, free_port):
    env = dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0', MASTER_PORT=free_port)
    work = tmp_path / 'work'
    result = run_tool('train.py', shapes_config, '--launcher', 'slurm', '--work-dir', work, '--no-validate', env=env)
    assert 'gloo' in result.text
    assert (work / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_scripts_without_arguments_say_how_they_are_called(script, run_tool):
    result = run_tool(script, check=False)
    assert result.returncode == 2
    assert f'tools/{script}' in result.stderr


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
@pytest.mark.parametrize(
    ('more', 'says'),
    [
        ({}, 'NNODES=2 needs NODE_RANK MASTER_ADDR'),
        (dict(NODE_RANK='1'), 'NNODES=2 needs MASTER_ADDR'),
        (dict(MASTER_ADDR='10.0.0.1'), 'NNODES=2 needs NODE_RANK'),
        (dict(MASTER_ADDR='10.0.0.1', NODE_RANK='2'), 'NODE_RANK=2 must be a number from 0 to 1'),
        (dict(MASTER_ADDR='10.0.0.1', NODE_RANK='1'), None),
    ],
    ids=['neither', 'no address', 'no rank', 'too high', 'both'],
)
def test_several_nodes_need_a_rank_and_an_address(script, more, says, run_tool, monkeypatch):
    for name in ('NODE_RANK', 'MASTER_ADDR'):
        monkeypatch.delenv(name, raising=False)
    arguments = ['config.py', *(['a.pth'] if 'test' in script else []), 2]
    result = run_tool(script, *arguments, env=dict(NNODES='2', PYTHON='echo', **more), check=False)
    if says is None:
        assert '--nnodes=2 --node_rank=1' in result.stdout
        return
    assert result.returncode == 2
    assert says in result.stderr
    if 'needs' in says:
        assert 'NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 ' in result.stderr
        assert f'{script} config.py' in result.stderr


class TestBadInput:
    def fails(self, call_tool, *args):
        code, text = call_tool(*args)
        assert str(code).startswith('error: ')
        return text + code

    def test_missing_data_names_the_layout(self, root, tmp_path, run_tool):
        result = run_tool('train.py', root / 'configs/vik/vik-s_in1k.py', check=False)
        assert result.returncode == 1
        text = result.text
        assert 'data/imagenet does not exist' in text
        assert 'train/<class>/*.JPEG' in text
        assert 'Traceback' not in text
        assert not (tmp_path / 'work_dirs').exists()

    def test_failed_download_names_the_layout(self, root, monkeypatch, call_tool):
        for name, value in dict(http_proxy='http://127.0.0.1:9', https_proxy='http://127.0.0.1:9', no_proxy='').items():
            monkeypatch.setenv(name, value)
        text = self.fails(call_tool, 'train.py', root / 'configs/vik/vik-t_cifar10.py')
        assert 'could not be downloaded' in text
        assert 'Below data/cifar10, CIFAR10 expects cifar-10-batches-py/' in text

    def test_checkpoint_of_another_arch(self, tmp_path, shapes_config, call_tool, make_classifier):
        path = tmp_path / 'other.pth'
        torch.save(dict(state_dict=make_classifier(arch='tiny', img_size=64).state_dict()), path)
        text = self.fails(call_tool, 'test.py', shapes_config, path)
        assert 'another arch (tiny)' in text
        assert 'accuracy' not in text

    def test_checkpoint_without_some_weights(self, tmp_path, shapes_config, call_tool):
        from mmengine.config import Config
        from mmpretrain.registry import MODELS

        state = MODELS.build(Config.fromfile(shapes_config).model).state_dict()
        del state['head.fc.bias']
        path = tmp_path / 'headless.pth'
        torch.save(dict(state_dict=state), path)
        text = self.fails(call_tool, 'test.py', shapes_config, path)
        assert 'does not fit' in text
        assert 'head.fc.bias' in text
        assert 'accuracy' not in text

    def test_truncated_checkpoint(self, tmp_path, shapes_config, call_tool):
        path = tmp_path / 'cut.pth'
        torch.save(dict(state_dict=dict(w=torch.zeros(1000))), path)
        path.write_bytes(path.read_bytes()[:2000])
        assert 'truncated' in self.fails(call_tool, 'test.py', shapes_config, path)

    def test_auto_scale_lr_without_a_base(self, tmp_path, shapes_config, call_tool):
        text = shapes_config.read_text() + 'auto_scale_lr = dict(_delete_=True)\n'
        shapes_config.write_text(text)
        assert 'base_batch_size' in self.fails(call_tool, 'train.py', shapes_config, '--auto-scale-lr')


def test_auto_scale_lr_scales_by_the_batch(tmp_path, shapes_config, call_tool):
    options = ('--work-dir', tmp_path / 'work', '--no-validate', '--auto-scale-lr')
    _, text = call_tool('train.py', shapes_config, *options)
    assert 'Scaling the original LR by 0.125' in text  # batches of 4, base_batch_size 32
    optimizer = read_checkpoint(tmp_path / 'work/epoch_1.pth')['optimizer']
    assert {group['initial_lr'] for group in optimizer['param_groups']} == {0.003 / 8}


class TestConverters:
    @pytest.fixture
    def released(self, golden, tmp_path):
        path = tmp_path / 'released.pth.tar'
        wrapped = {f'module.{key}': value for key, value in golden.weights('vik_small').items()}
        torch.save(dict(state_dict=wrapped, epoch=300, arch='vik_small'), path)
        return path

    def test_there_and_back_and_into_the_config(self, root, tmp_path, released, golden, call_tool):
        from mmengine.config import Config
        from mmpretrain.registry import MODELS

        ours, back = tmp_path / 'ours.pth', tmp_path / 'back.pth'
        assert 'arch small' in call_tool('model_converters/reference_to_vik_mm.py', released, ours)[1]
        model = MODELS.build(Config.fromfile(root / 'configs/vik/vik-s_in1k.py').model)
        model.load_state_dict(torch.load(ours, weights_only=True)['state_dict'], strict=True)

        call_tool('model_converters/vik_mm_to_reference.py', ours, back)
        expected, got = golden.weights('vik_small'), torch.load(back, weights_only=True)['state_dict']
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[key], expected[key]) for key in expected)

    def test_unknown_weights_and_the_wrong_arch_are_named_and_nothing_is_written(self, tmp_path, released, call_tool):
        script, out = 'model_converters/reference_to_vik_mm.py', tmp_path / 'out.pth'
        checkpoint = torch.load(released, weights_only=True)
        checkpoint['state_dict']['module.extra'] = torch.zeros(1)
        torch.save(checkpoint, released)
        code, _ = call_tool(script, released, out)
        assert 'unknown are extra' in code
        code, _ = call_tool(script, released, out, '--arch', 'base')
        assert 'holds arch small' in code
        assert not out.exists()


def test_make_shapes_writes_the_layouts_asked_for(tmp_path, call_tool):
    args = ('--train', 4, '--val', 2, '--test', 1, '--layouts', 'imagenet', 'ade20k')
    call_tool('data/make_shapes.py', tmp_path / 'shapes', *args)
    assert sorted(p.name for p in (tmp_path / 'shapes').iterdir()) == ['ade20k', 'imagenet', 'shapes.json']


TOOLS = sorted(
    str(path.relative_to(ROOT))
    for folder in ('tools', 'benchmarks')
    for path in (ROOT / folder).rglob('*.py')
    if "__name__ == '__main__'" in path.read_text() and path.name != 'plot.py'
)
CONFIG = ROOT / 'configs/vik/vik-demo_shapes.py'
HERE = Path(__file__)  # stands for a checkpoint that is there
# What a tool can tell without a model, and how its message begins.
EARLY_ERRORS = {
    'tools/train.py': [
        (['none.py'], 'config none.py does not exist'),
        (['none.json', '--safe-config'], 'config none.json does not exist'),
        (['mmpretrain::resnet/none.py'], 'config mmpretrain::resnet/none.py does not exist; resnet/ has '),
        (['mmfoo::none.py'], 'mmfoo is not installed, or none of mmdet, mmseg, mmpretrain'),
        ([CONFIG, '--backbone', 'vik-x'], "backbone 'vik-x' is unknown; choose one of ['karat-b', "),
        ([CONFIG, '--resume', 'none.pth'], 'checkpoint none.pth does not exist'),
    ],
    'tools/test.py': [
        (['none.py', HERE], 'config none.py does not exist'),
        ([CONFIG, 'none.pth'], 'checkpoint none.pth does not exist'),
        ([CONFIG, 'none.onnx'], 'exported file none.onnx does not exist'),
        ([CONFIG, HERE, '--backbone', 'vik-x'], "backbone 'vik-x' is unknown"),
        ([CONFIG, HERE, '--out', 'out.txt'], '--out out.txt must end in .pkl'),
    ],
    'tools/infer.py': [
        (['none.py', HERE, '.', '--out', 'out'], 'config none.py does not exist'),
        ([CONFIG, 'none.pth', '.', '--out', 'out'], 'checkpoint none.pth does not exist'),
        ([CONFIG, HERE, '.', '--out', 'out', '--backbone', 'vik-x'], "backbone 'vik-x' is unknown"),
    ],
    'tools/export.py': [
        (['none.py', HERE, '--format', 'onnx', '--out', 'a.onnx'], 'config none.py does not exist'),
        ([CONFIG, 'none.pth', '--format', 'onnx', '--out', 'a.onnx'], 'checkpoint none.pth does not exist'),
        ([CONFIG, HERE, '--format', 'onnx', '--out', 'a.onnx', '--backbone', 'vik-x'], "backbone 'vik-x' is unknown"),
        ([CONFIG, HERE, '--format', 'onnx', '--out', 'a.pt'], 'a file of format onnx must end in .onnx, got a.pt'),
    ],
    'tools/analysis_tools/get_flops.py': [(['none.py'], 'config none.py does not exist')],
    'tools/analysis_tools/resolution_table.py': [
        (['none.py', HERE, '--metrics', 'mIoU'], 'config none.py does not exist'),
        ([CONFIG, 'none.pth', '--metrics', 'mIoU'], 'checkpoint none.pth does not exist'),
    ],
    'tools/analysis_tools/switch_off.py': [
        ([CONFIG, 'none.pth', '--metrics', 'mIoU', '--zero', 'a'], 'checkpoint none.pth does not exist'),
        ([CONFIG, HERE, '--metrics', 'mIoU', '--zero', '['], "--zero '[' is no regular expression"),
    ],
    'tools/analysis_tools/swap_sweep.py': [(['mmdet/none'], "unknown ['mmdet/none']; choose from mmdet/atss ")],
    'tools/model_converters/publish.py': [(['none.pth', 'out'], 'checkpoint none.pth does not exist')],
    'tools/model_converters/reference_to_vik_mm.py': [(['none.pth', 'out'], 'checkpoint none.pth does not exist')],
    'tools/model_converters/vik_mm_to_reference.py': [(['none.pth', 'out'], 'checkpoint none.pth does not exist')],
}


class TestBeforeAnythingIsImported:
    """Importing PyTorch and the mm packages takes ten seconds and more: nobody waits for it to be told of a typo."""

    def run(self, script, *args):
        command = [sys.executable, '-X', 'importtime', ROOT / script, *args]
        result = subprocess.run([*map(str, command)], capture_output=True, text=True)
        lines = [line for line in result.stderr.splitlines() if not line.startswith('import time:')]
        imported = {line.rsplit('|', 1)[-1].strip() for line in result.stderr.splitlines() if '|' in line}
        assert 'argparse' in imported
        heavy = {'torch', 'numpy', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'vik_mm', 'timm', 'cv2', 'rich'}
        assert not imported & heavy
        return result.returncode, result.stdout, '\n'.join(lines)

    @pytest.mark.parametrize('script', TOOLS)
    def test_help_is_shown(self, script):
        code, out, _ = self.run(script, '--help')
        assert code == 0
        assert f'usage: {Path(script).name}' in out

    @pytest.mark.parametrize(
        'script,args,message', [(s, *case) for s, cases in EARLY_ERRORS.items() for case in cases], ids=str
    )
    def test_what_is_not_there_is_named(self, script, args, message):
        code, _, text = self.run(script, *args)
        assert code == 1
        assert text.startswith(f'error: {message}')

    def test_tools_know_what_the_package_knows(self, root, load_tool):
        import vik_mm
        from vik_mm import deploy
        from vik_mm.config import swap
        from vik_mm.datasets.shapes import LAYOUTS
        from vik_mm_cli import command_line

        assert list(command_line.BACKBONES) == sorted(swap._BACKBONES)
        assert command_line.EXPORT_ENDINGS == deploy.ENDINGS
        tool = load_tool('export.py')
        assert (tool.PARTS, tool.DTYPES) == (deploy.PARTS, deploy.DTYPES)
        assert load_tool('data/make_shapes.py').LAYOUTS == LAYOUTS
        archs = load_tool('model_converters/reference_to_vik_mm.py').ARCHS
        assert list(archs) == sorted(vik_mm.ViK.arch_settings)
        suites = re.search(r'^SUITES = dict\((.*?)^\)', (root / 'benchmarks/cases.py').read_text(), re.M | re.S)[1]
        assert list(load_tool('../benchmarks/bench.py').SUITES) == re.findall(r'(\w+)=', suites)


def test_packages_do_not_say_that_the_client_of_onedl_is_missing(capsys):
    import logging

    import mmengine.logging

    import vik_mm  # noqa: F401

    mmengine.logging.print_log('Could not import OneDL. Skipping OneDL datasets.', level=logging.DEBUG)
    assert not capsys.readouterr().out
    mmengine.logging.print_log('Could not import OneDL.')
    mmengine.logging.print_log('another thing', level=logging.DEBUG)
    assert capsys.readouterr().out == 'Could not import OneDL.\nanother thing\n'


class TestHoldOut:
    @pytest.fixture
    def annotations(self, tmp_path):
        content = dict(
            images=[dict(id=k) for k in range(10)],
            annotations=[dict(id=k, image_id=k % 10, category_id=k % 3) for k in range(30)],
            categories=[dict(id=k, name=str(k)) for k in range(3)],
        )
        path = tmp_path / 'all.json'
        path.write_text(json.dumps(content))
        return path

    def test_each_image_and_its_objects_are_in_one_part(self, annotations, call_tool):
        code, text = call_tool('data/hold_out.py', annotations, '--count', 3)
        assert not code and '3 images, 9 objects of 3 categories' in text
        parts = [json.loads(annotations.with_name(f'all_{name}.json').read_text()) for name in ('kept', 'held_out')]
        ids = [{image['id'] for image in part['images']} for part in parts]
        assert [len(each) for each in ids] == [7, 3] and not ids[0] & ids[1]
        for part, own in zip(parts, ids):
            assert {each['image_id'] for each in part['annotations']} == own
        assert sum(len(part['annotations']) for part in parts) == 30

    @pytest.mark.parametrize('count', [0, 10])
    def test_a_count_that_leaves_a_part_empty_is_refused(self, annotations, call_tool, count):
        code, _ = call_tool('data/hold_out.py', annotations, '--count', count)
        assert code == f'error: --count {count} must be from 1 to 9, less than the images of the file'
