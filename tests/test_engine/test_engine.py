import argparse
import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import OPTIM_WRAPPERS

from vik_mm.checkpoints import check_checkpoint_file, read_checkpoint, unwrap_state_dict
from vik_mm.compat.runner_classes import runner_classes
from vik_mm.config import fit_to_machine, load_config
from vik_mm.datasets.layouts import check_datasets
from vik_mm.engine.hooks import CompileHook
from vik_mm.engine.runner import complete_config, init_distributed, resolve_resume
from vik_mm.errors import BadInputError


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'epoch_3.pth'
    weights = dict(weight=torch.arange(3.0))
    torch.save(dict(state_dict=weights, meta=dict(epoch=3, iter=12), message_hub={}), path)
    return path


class Payload:
    """What a malicious checkpoint would hold: unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Reach:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return getattr, self.target


class TestReadingCheckpoints:
    def test_reads_what_timm_saves(self, tmp_path):
        path = tmp_path / 'timm.pth.tar'
        torch.save(dict(state_dict=dict(w=torch.ones(2)), args=argparse.Namespace(lr=0.1), epoch=3), path)
        assert read_checkpoint(path)['epoch'] == 3

    @pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
    def test_a_truncated_file_is_called_that(self, checkpoint, share):
        data = checkpoint.read_bytes()
        checkpoint.write_bytes(data[: int(len(data) * share)])
        for read in (check_checkpoint_file, read_checkpoint):
            with pytest.raises(ValueError, match='truncated.*again'):
                read(checkpoint)

    def test_a_missing_file_is_called_that(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='none.pth does not exist'):
            read_checkpoint(tmp_path / 'none.pth')

    def test_code_in_a_file_is_refused_and_not_run(self, tmp_path):
        path, sentinel = tmp_path / 'evil.pth', tmp_path / 'sentinel'
        torch.save(dict(state_dict=Payload(sentinel)), path)
        with pytest.raises(ValueError, match='runs code'):
            read_checkpoint(path)
        assert not sentinel.exists()

    def test_something_else_than_a_dict_is_refused(self, tmp_path):
        path = tmp_path / 'list.pth'
        torch.save([torch.ones(1)], path)
        with pytest.raises(ValueError, match='holds a list'):
            read_checkpoint(path)

    @pytest.mark.parametrize('prefix', ['', 'module.'], ids=['plain', 'ddp'])
    @pytest.mark.parametrize('key', [None, 'state_dict', 'state_dict_ema', 'model'], ids=str)
    def test_weights_are_found_under_any_wrapping(self, key, prefix):
        weights = {f'{prefix}norm.weight': torch.ones(1)}
        assert unwrap_state_dict(weights if key is None else {key: weights, 'epoch': 1}) == (
            {'norm.weight': torch.ones(1)},
            key,
        )

    def test_averaged_weights_are_preferred_unless_told_otherwise(self):
        both = dict(state_dict=dict(w=torch.zeros(1)), state_dict_ema=dict(w=torch.ones(1)))
        assert unwrap_state_dict(both)[0]['w'] == 1
        assert unwrap_state_dict(both, prefer_ema=False)[0]['w'] == 0

    def test_a_file_without_weights_is_refused(self):
        with pytest.raises(ValueError, match="no weights.*'epoch'"):
            unwrap_state_dict(dict(epoch=1))


class TestDataCheck:
    def config(self, root, **dataset):
        dataset = dict(type='ImageNet', data_root=str(root), split='train') | dataset
        return Config(dict(train_dataloader=dict(dataset=dataset)))

    def test_passes_where_everything_is_there(self, tmp_path):
        for k in range(1000):
            (tmp_path / f'train/n{k:08d}').mkdir(parents=True)
        (tmp_path / 'train/n00000009/a.JPEG').touch()
        check_datasets(self.config(tmp_path))

    @pytest.mark.parametrize('missing', ['root', 'split'])
    def test_names_path_layout_and_remedy(self, tmp_path, missing):
        root = tmp_path / 'imagenet'
        if missing == 'split':
            root.mkdir()
        with pytest.raises(FileNotFoundError, match=r'imagenet.*does not exist; ImageNet expects.*<class>.*data_root='):
            check_datasets(self.config(root))

    def test_looks_inside_wrappers(self, tmp_path):
        inner = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='none')
        cfg = self.config('', type='ConcatDataset', split=None)
        cfg.train_dataloader.dataset = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[inner]))
        with pytest.raises(FileNotFoundError, match='CustomDataset expects'):
            check_datasets(cfg)

    def test_looks_for_annotation_files_and_prefixes(self, tmp_path):
        coco = dict(type='CocoDataset', split=None, ann_file='annotations/a.json', data_prefix=dict(img='train2017/'))
        (tmp_path / 'train2017').mkdir()
        with pytest.raises(FileNotFoundError, match=r'annotations/a\.json'):
            check_datasets(self.config(tmp_path, **coco))
        (tmp_path / 'annotations').mkdir()
        (tmp_path / 'annotations/a.json').touch()
        check_datasets(self.config(tmp_path, **coco))

    def test_leaves_downloads_and_remote_roots_alone(self, tmp_path):
        check_datasets(self.config(tmp_path / 'none', type='CIFAR10'))
        check_datasets(self.config('s3://bucket/imagenet'))
        with pytest.raises(FileNotFoundError, match='cifar-10-batches-py'):
            check_datasets(self.config(tmp_path / 'none', type='CIFAR10', download=False))


class TestResume:
    @pytest.fixture
    def cfg(self, tmp_path):
        return Config(dict(work_dir=str(tmp_path), resume=False, load_from=None))

    def test_nothing_to_resume_starts_fresh(self, cfg):
        resolve_resume(cfg, 'auto')
        assert (cfg.resume, cfg.load_from) == (False, None)

    def test_auto_takes_the_newest_even_if_the_folder_moved(self, cfg, checkpoint, tmp_path):
        (tmp_path / 'last_checkpoint').write_text('/somewhere/else/epoch_3.pth')
        resolve_resume(cfg, 'auto')
        assert (cfg.resume, cfg.load_from) == (True, str(checkpoint))

    def test_a_deleted_newest_is_an_error(self, cfg, tmp_path):
        (tmp_path / 'last_checkpoint').write_text('/somewhere/else/epoch_3.pth')
        with pytest.raises(FileNotFoundError, match='names.*epoch_3.*--resume FILE'):
            resolve_resume(cfg, 'auto')

    def test_a_file_is_taken_by_name_and_checked(self, cfg, checkpoint):
        resolve_resume(cfg, str(checkpoint))
        assert (cfg.resume, cfg.load_from) == (True, str(checkpoint))
        checkpoint.write_bytes(b'PK')
        with pytest.raises(ValueError, match='truncated'):
            resolve_resume(cfg, str(checkpoint))

    def test_without_it_nothing_changes(self, cfg):
        resolve_resume(cfg, None)
        assert (cfg.resume, cfg.load_from) == (False, None)


class TestLaunch:
    def test_a_missing_config_is_named(self):
        with pytest.raises(FileNotFoundError, match=r'config no/such\.py does not exist'):
            load_config('no/such.py')

    def test_options_and_work_dir_override_the_config(self, root):
        path = str(root / 'configs/vik/vik-t_cifar10.py')
        cfg = load_config(path, {'train_cfg.max_epochs': 2}, 'here')
        assert (cfg.train_cfg.max_epochs, cfg.work_dir) == (2, 'here')
        assert load_config(path).work_dir == os.path.join('work_dirs', 'vik-t_cifar10')

    @pytest.mark.skipif(torch.cuda.is_available(), reason='is about machines without a GPU')
    def test_without_a_gpu_mixed_precision_and_pinned_memory_go(self):
        cfg = Config(
            dict(
                optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic', clip_grad=1),
                train_dataloader=dict(pin_memory=True, num_workers=0, persistent_workers=True),
                test_cfg=dict(fp16=True),
            )
        )
        fit_to_machine(cfg)
        assert cfg.optim_wrapper.to_dict() == dict(type='OptimWrapper', clip_grad=1)
        assert cfg.train_dataloader.to_dict() == dict(pin_memory=False, num_workers=0, persistent_workers=False)
        assert 'fp16' not in cfg.test_cfg

    @pytest.mark.skipif(torch.cuda.is_available(), reason='is about machines without a GPU')
    def test_without_a_gpu_bfloat16_stays_mixed_precision(self):
        cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic')))
        fit_to_machine(cfg)
        layer = torch.nn.Linear(3, 2)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        wrapper = OPTIM_WRAPPERS.build(dict(cfg.optim_wrapper, optimizer=optimizer))
        with wrapper.optim_context(layer):
            out = layer(torch.ones(1, 3))
        assert out.dtype == torch.bfloat16
        wrapper.update_params(out.float().sum())
        assert layer.weight.grad is None or layer.weight.grad.dtype == torch.float32
        assert not torch.is_autocast_enabled('cpu')

    @pytest.mark.skipif(torch.cuda.is_available(), reason='is about machines without a GPU')
    def test_a_launcher_without_its_environment_is_told_how_to_start(self, monkeypatch):
        for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ValueError, match='needs RANK, WORLD_SIZE.*dist_train.sh'):
            init_distributed(Config(), 'pytorch')


def test_a_group_that_is_there_already_still_gives_ddp_no_devices_on_a_cpu(monkeypatch):
    """As with --data, whose processes wait for the first one to look at the data."""
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr('vik_mm.engine.runner.launch.is_distributed', lambda: True)
    cfg = Config()
    init_distributed(cfg, 'pytorch')
    assert cfg.model_wrapper_cfg.device_ids is None


class TestRunnerCheckpoints:
    """MMEngine's Runner stores more than tensors; all of it must be read as data."""

    def test_history_buffers_come_back(self, tmp_path):
        path = tmp_path / 'run.pth'
        buffer = HistoryBuffer([1.0, 3.0], [1, 1])
        torch.save(dict(state_dict=dict(w=torch.ones(1)), message_hub=dict(log=buffer)), path)
        log = read_checkpoint(path)['message_hub']['log']
        assert log.mean() == 2
        assert log.statistics('max') == 3

    def test_what_was_allowed_before_stays_allowed(self, tmp_path):
        path = tmp_path / 'run.pth'
        torch.save(dict(state_dict=dict(w=torch.ones(1)), message_hub=HistoryBuffer([1.0], [1])), path)
        with torch.serialization.safe_globals(runner_classes()):
            read_checkpoint(path)
            torch.load(path, weights_only=True)

    @pytest.mark.parametrize('target', [(torch.Tensor, 'numpy'), (HistoryBuffer, '__init__')], ids=str)
    def test_getattr_reaches_nothing_else(self, tmp_path, target):
        path = tmp_path / 'reach.pth'
        torch.save(dict(state_dict=Reach(target)), path)
        with pytest.raises(ValueError, match='runs code'):
            read_checkpoint(path)


class TestCompileHook:
    @staticmethod
    def runner(model):
        return SimpleNamespace(model=model)

    def test_the_state_dict_keeps_its_names_and_answers_its_values(self, make_vik):
        model = torch.nn.Module()
        model.backbone = make_vik(arch=dict(depths=(1,), embed_dims=(8,)), img_size=32, out_indices=(0,)).eval()
        x = torch.randn(2, 3, 40, 33)
        names, (expected,) = list(model.state_dict()), model.backbone(x)
        CompileHook(backend='eager').before_run(self.runner(model))
        assert list(model.state_dict()) == names
        torch.testing.assert_close(model.backbone(x)[0], expected, rtol=1e-4, atol=1e-5)

    def test_a_model_without_backbone_is_refused(self):
        with pytest.raises(BadInputError, match='Linear has none'):
            CompileHook(backend='eager').before_run(self.runner(torch.nn.Linear(1, 1)))

    def test_a_machine_without_compiler_is_told_what_to_install(self, monkeypatch, make_vik):
        monkeypatch.setenv('PATH', '')
        model = torch.nn.Module()
        model.backbone = make_vik(arch=dict(depths=(1,), embed_dims=(8,)), out_indices=(0,))
        with pytest.raises(BadInputError, match='compile.*install g'):
            CompileHook().before_run(self.runner(model))

    @torch._dynamo.config.patch(optimize_ddp=True)  # what the hook sets ends with the test
    def test_the_graph_of_a_model_that_several_processes_train_is_not_cut(self, tmp_path, make_vik):
        """PyTorch would cut it where a bucket of gradients is full, and fail where a number crosses the cut."""
        graphs = []

        def backend(graph, inputs):
            graphs.append(graph)
            return graph.forward

        model = torch.nn.Module()
        model.backbone = make_vik(arch=dict(depths=(1, 1), embed_dims=(32, 192)), img_size=64, out_indices=(1,))
        model.forward = lambda x: model.backbone(x)[-1].mean()
        torch.distributed.init_process_group('gloo', f'file://{tmp_path}/store', rank=0, world_size=1)
        try:
            wrapped = MMDistributedDataParallel(model, bucket_cap_mb=1)
            CompileHook(backend=backend).before_run(self.runner(wrapped))
            for size in (64, 96):
                wrapped(torch.randn(2, 3, size, size)).backward()
        finally:
            torch.distributed.destroy_process_group()
        assert len(graphs) == 1
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_takes_the_place_of_mmengines_own(self):
        cfg = Config(dict(compile=True, custom_hooks=[dict(type='EMAHook')]))
        complete_config(cfg)
        cfg.compile = True
        complete_config(cfg)
        assert [hook['type'] for hook in cfg.custom_hooks] == ['EMAHook', 'CompileHook']
        assert cfg.compile is False
