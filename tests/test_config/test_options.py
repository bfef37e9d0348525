"""--cfg-options: what values mean, and that no setting goes unread."""

import argparse
import logging

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

from vik_mm.config import load_config
from vik_mm.config.form import warn_of_unread_names
from vik_mm.config.options import merge_options
from vik_mm.errors import BadInputError
from vik_mm_cli.config_files import shipped_configs
from vik_mm_cli.option_values import ConfigOptions, parse_value

CLASSIFIER = 'configs/vik/vik-t_cifar10.py'
DETECTOR = 'configs/detection/mask-rcnn_vik-s_fpn_1x_coco.py'


@pytest.fixture
def logged():
    """Collect what goes to MMEngine's log."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


class TestValues:
    @pytest.mark.parametrize(
        'text',
        [
            *('1', '-1', '+5', '1e5', '1.5', '1_000', '01', 'inf', '0x10', '-'),
            *('true', 'True', 'FALSE', 'None', 'none', 'abc', '', "it's", '"abc"', "'abc'"),
            *('a/b.py', 's3://x:9/y', r'C:\data', 'a(1).jpg', '{name}.png', '{name}', '{:03d}', '{{dir}}', 'a=b'),
            *('1,2,3', 'a,b', '1,', '[1,2,3]', '[1,]', '[1,,2]', '[]', '[a, b, c]', '["a",\'b\']', '[None,True,1.5]'),
            *('(1,2,3)', '(a)', '()', '[(1,2),(3,4)]', '[(a,b),[c,d],e]', '[1,[2,[3,(4,5)]]]'),
        ],
    )
    def test_are_those_of_mmengine_where_it_reads_them(self, text):
        assert repr(parse_value(text)) == repr(DictAction._parse_iterable(text))

    @pytest.mark.parametrize(
        ('text', 'value'),
        [
            ('hello world', 'hello world'),
            ('[a b, c]', ['a b', 'c']),
            ("' a '", ' a '),
            ("'1'", '1'),
            ("'[1,2]'", '[1,2]'),
            (r"'it\'s'", "it's"),
            (r"'C:\new'", r'C:\new'),
            ('[1],[2]', [[1], [2]]),
            ('{}', {}),
            ("{'a': 'x, y: z', b: [c, {1: None}]}", {'a': 'x, y: z', 'b': ['c', {1: None}]}),
            ("[{'type': 'A b', 'scale': (64, 64)}, {'type': 'C'}]", [dict(type='A b', scale=(64, 64)), dict(type='C')]),
            ('[dict(type=A,scale=(64,64)), dict(type=B)]', [dict(type='A', scale=(64, 64)), dict(type='B')]),
            ('a(1,2)', 'a(1,2)'),
        ],
        ids=str,
    )
    def test_keep_spaces_and_may_be_dicts_and_lists_of_dicts(self, text, value):
        assert parse_value(text) == value

    @pytest.mark.parametrize(
        ('text', 'why'),
        [
            ('[1,2', "']' is expected at character 5, where the value ends"),
            ('1]', 'closes nothing'),
            ("[{'a': 1}", "']' is expected"),
            ('{a: 1', "'}' is expected"),
            ('{1,2}', "':' is expected at character 3"),
            ("'a", "the quote ' at character 1 has no end"),
            ("'a' b", "ends at character 4, before 'b'"),
            ('[' * 3000, 'more than 50 deep'),
        ],
    )
    def test_that_cannot_be_read_are_an_error_that_says_why(self, text, why, capsys):
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
        with pytest.raises(SystemExit) as error:
            parser.parse_args(['--cfg-options', f'key={text}'])
        assert error.value.code == 2
        written = capsys.readouterr().err
        assert 'cannot read the value of key=' in written
        assert why in written

    def test_come_from_several_options_and_need_a_key(self, capsys):
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
        arguments = ['--cfg-options', 'a.b=1', 'c=x=y', '--cfg-options', 'a.b=2']
        assert parser.parse_args(arguments).cfg_options == {'a.b': 2, 'c': 'x=y'}
        for wrong in ('a', '=1', 'a..b=1'):
            with pytest.raises(SystemExit):
                parser.parse_args(['--cfg-options', wrong])
            assert f"'{wrong}' is not KEY=VALUE" in capsys.readouterr().err


def merge(root, config, **options):
    cfg = Config.fromfile(root / config)
    merge_options(cfg, {key.replace('__', '.'): value for key, value in options.items()})
    return cfg


def test_options_of_mixed_precision_are_known_where_it_is_asked_for(root):
    path, options = str(root / 'configs/vik/vik-t_cifar10.py'), {'optim_wrapper.dtype': 'bfloat16'}
    cfg = load_config(path, options, is_amp=True)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('AmpOptimWrapper', 'bfloat16')
    with pytest.raises(BadInputError, match='nothing reads optim_wrapper.dtype'):
        load_config(path, options)


def test_a_preprocessor_at_the_top_is_not_replaced_by_one_key_of_the_models(root):
    path = str(root / 'configs/vik/vik-t_cifar10.py')
    with pytest.raises(BadInputError, match=r'replace all of data_preprocessor; set data_preprocessor\.to_rgb'):
        load_config(path, {'model.data_preprocessor.to_rgb': False})
    assert load_config(path, {'data_preprocessor.to_rgb': True}).data_preprocessor.num_classes == 10


@pytest.mark.parametrize(
    'key,value',
    [
        *[('train_cfg.max_epochs', value) for value in (0, -3, 3.5, 'abc', float('nan'))],
        ('train_cfg.val_interval', 0),
        ('train_dataloader.batch_size', 0),
        ('train_dataloader.num_workers', -1),
        ('default_hooks.logger.interval', 0),
    ],
)
def test_counts_that_make_no_sense_are_named(root, key, value):
    with pytest.raises(ValueError, match=rf'{key}={value!r} must be a whole number from [01] up'):
        load_config(str(root / 'configs/vik/vik-t_cifar10.py'), {key: value})


class TestKeys:
    @pytest.mark.parametrize(
        ('key', 'says'),
        [
            ('train_cfgs.max_iters', 'did you mean train_cfg.max_epochs?'),
            ('backbone.drop_path_rate', r'did you mean model\.backbone\.drop_path_rate\?'),
            ('lr', r'did you mean optim_wrapper\.optimizer\.lr\?'),
            ('num_workers', r'mean train_dataloader\.num_workers, val_dataloader\.num_workers, test_dataloader'),
            ('model.backbone.drop_path_rat', r'mean model\.backbone\.drop_path_rate\? model\.backbone \(ViK\) takes'),
            ('model.head.loss.label_smooth', r'mean model\.head\.loss\.label_smooth_val\?'),
            ('train_cfg.max_iters', r'mean train_cfg\.max_epochs\? train_cfg \(ResumableEpochLoop\) takes'),
            ('train_dataloader.num_worker', r'mean train_dataloader\.num_workers\?'),
            ('train_dataloader.dataset.data_roots', r'mean train_dataloader\.dataset\.data_root\?'),
            ('train_dataloader.dataset.pipeline.0.paddings', r'mean train_dataloader\.dataset\.pipeline\.0\.padding\?'),
            ('env_cfg.cudnn_bench', r'mean env_cfg\.cudnn_benchmark\?'),
            ('randomness.sed', r'mean randomness\.seed\?'),
            ('auto_scale_lr.base_batch', r'mean auto_scale_lr\.base_batch_size\?'),
            ('optim_wrapper.paramwise_cfg.norm_decay', r'mean optim_wrapper\.paramwise_cfg\.norm_decay_mult\?'),
            ('default_hooks.logger.intervals', r'mean default_hooks\.logger\.interval\?'),
            ('default_hooks.loger', r'mean default_hooks\.logger\?'),
            ('param_scheduler.0.start_fact', r'mean param_scheduler\.0\.start_factor\?'),
            ('param_scheduler.3.end', 'holds numbers 0 to 1, and no 3'),
            ('model.backbone.img_size.x', r'model\.backbone\.img_size is 32, and has no keys'),
            ('launcher', 'set by --launcher'),
            ('custom_imports.imports', 'read with the config file'),
            ('foo.bar', 'nothing reads foo; the config takes auto_scale_lr, '),
        ],
    )
    def test_that_nothing_reads_are_refused_with_what_was_meant(self, root, key, says):
        with pytest.raises(BadInputError, match=says):
            merge(root, CLASSIFIER, **{key: 1})

    @pytest.mark.parametrize(
        ('key', 'places'),
        [
            (
                'data_root',
                'train_dataloader.dataset.data_root, val_dataloader.dataset.data_root, '
                'test_dataloader.dataset.data_root, val_evaluator.ann_file, test_evaluator.ann_file',
            ),
            ('max_epochs', 'param_scheduler.1.end, train_cfg.max_epochs'),
            ('train_pipeline.2.scale', 'train_dataloader.dataset.pipeline.2.scale'),
        ],
    )
    def test_that_the_file_copied_are_refused_with_the_places_of_the_copies(self, root, key, places):
        with pytest.raises(BadInputError, match=f'{key} would change nothing') as error:
            merge(root, DETECTOR, **{key: 1})
        assert str(error.value).endswith(f'set {places}')

    @pytest.mark.parametrize(
        ('key', 'value'),
        [
            ('model.backbone.drop_path_rate', 0.1),  # an argument that the config leaves out
            ('train_dataloader.dataset.indices', 10),  # of a base class, through **kwargs
            ('train_dataloader.dataset.pipeline.1.prob', 0.3),
            ('default_hooks.checkpoint.save_best', 'auto'),
            ('default_hooks.mine', dict(type='EMAHook')),
            ('custom_hooks', [dict(type='EMAHook', momentum=0.1)]),
            ('optim_wrapper.clip_grad.max_norm', 1.0),
            ('optim_wrapper.paramwise_cfg.norm_decay_mult', 0.0),
            ('train_cfg.val_begin', 2),
            ('test_cfg.fp16', True),
            ('param_scheduler.1.T_max', 3),
            ('model_wrapper_cfg.find_unused_parameters', True),
            ('work_dir', 'here'),
            ('compile', True),
            ('val_dataloader', None),
            ('model.neck.type', 'Other'),
        ],
    )
    def test_that_a_part_of_the_run_reads_are_taken(self, root, key, value):
        cfg = merge(root, CLASSIFIER, **{key: value})
        node = cfg
        for part in key.split('.'):
            node = node[int(part)] if part.isdigit() else node[part]
        assert node == value

    def test_follow_the_type_that_is_set_with_them(self, root):
        mixer = dict(model__backbone__token_mixer__type='Pooling')
        merge(root, CLASSIFIER, **mixer, model__backbone__token_mixer__pool_size=5)
        with pytest.raises(BadInputError, match=r'pool_sizes; did you mean model.backbone.token_mixer.pool_size\?'):
            merge(root, CLASSIFIER, **mixer, model__backbone__token_mixer__pool_sizes=5)

    def test_inside_of_dicts_are_checked_too(self, root):
        other = dict(_delete_=True, type='ResNet', depth=50)
        assert merge(root, CLASSIFIER, model__backbone=other).model.backbone == dict(type='ResNet', depth=50)
        with pytest.raises(BadInputError, match=r'nothing reads model\.backbone\.depths'):
            merge(root, CLASSIFIER, model__backbone={**other, 'depths': 1})

    def test_dicts_take_the_place_of_nothing(self, root):
        assert merge(root, CLASSIFIER, optim_wrapper__clip_grad=dict(max_norm=1)).optim_wrapper.clip_grad.max_norm == 1
        cfg = Config.fromfile(root / CLASSIFIER)
        cfg.model.neck = None
        merge_options(cfg, {'model.neck': dict(type='GlobalAveragePooling')})
        assert cfg.model.neck.type == 'GlobalAveragePooling'

    def test_elements_of_lists_are_set_one_by_one(self, root):
        cfg = merge(root, DETECTOR, model__neck__in_channels__1=7, param_scheduler__0=dict(end=3), custom_hooks=[])
        assert cfg.model.neck.in_channels[1] == 7
        assert (cfg.param_scheduler[0].type, cfg.param_scheduler[0].end) == ('LinearLR', 3)
        cfg = merge(root, DETECTOR, param_scheduler={'type': 'ConstantLR', 'factor': 0.5})
        assert cfg.param_scheduler == dict(type='ConstantLR', factor=0.5)

    def test_that_set_the_same_are_refused(self, root):
        with pytest.raises(BadInputError, match=r'train_cfg and train_cfg\.max_epochs set the same'):
            merge(root, CLASSIFIER, train_cfg={}, train_cfg__max_epochs=1)

    def test_of_dicts_that_take_any_are_taken_with_a_hint_at_a_near_one(self, root, logged):
        merge(root, DETECTOR, model__test_cfg__rcnn__score_thrs=0.1)
        assert 'score_thrs is new; did you mean model.test_cfg.rcnn.score_thr?' in logged[-1]
        before = len(logged)
        merge(root, DETECTOR, model__test_cfg__rcnn__of_my_head=0.1)
        assert len(logged) == before

    def test_of_ones_own_code_are_taken_with_a_warning(self, root, logged):
        cfg = Config.fromfile(root / CLASSIFIER)
        cfg.my_option = 3
        with pytest.raises(BadInputError, match='its value stands nowhere that is read'):
            merge_options(cfg, dict(my_option=4))
        cfg.custom_imports = dict(imports=['vik_mm', 'my_project.hooks'])
        merge_options(cfg, dict(my_option=4))
        assert 'nothing of MMEngine or vik_mm reads my_option' in logged[-1]


@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'infer.py', 'export.py'])
def test_every_tool_refuses_a_key_that_nothing_reads(tool, shapes_config, tmp_path, shapes_folder, call_tool):
    checkpoint, image = tmp_path / 'model.pth', next(shapes_folder.rglob('*.png'))
    torch.save(dict(state_dict=dict(w=torch.zeros(1))), checkpoint)
    arguments = {
        'train.py': [],
        'test.py': [checkpoint],
        'infer.py': [checkpoint, image, '--out', tmp_path / 'out'],
        'export.py': [checkpoint, '--format', 'onnx', '--out', tmp_path / 'out.onnx'],
    }
    code, _ = call_tool(tool, shapes_config, *arguments[tool], '--cfg-options', 'lr=0.01')
    assert str(code).startswith('error: --cfg-options lr: nothing reads lr; did you mean optim_wrapper.optimizer.lr?')


class TestNamesInFiles:
    def test_that_are_close_to_known_ones_are_logged_in_one_line(self, logged):
        own = dict(train_cfgs=dict(max_iters=2), default_hook={}, optim_wraper={}, my_dict={}, lr=0.1, models=[1])
        known = dict(env_cfg=dict(cudnn_bench=True), auto_scale_lr=dict(enabled=True), randomness=dict(seed=0))
        warn_of_unread_names(Config({**own, **known}))
        (line,) = logged
        for slip in (
            *('train_cfgs (is train_cfg meant?)', 'default_hook (is', 'optim_wraper (is optim_wrapper', 'models (is'),
            *('auto_scale_lr.enabled (is enable meant?)', 'env_cfg.cudnn_bench (is cudnn_benchmark meant?)'),
        ):
            assert slip in line
        assert 'my_dict' not in line

    def test_of_ones_own_and_of_configs_that_ship_are_left_alone(self, root, logged):
        paths = sorted((root / 'configs').glob('[a-z]*/*.py'))[::3]
        for package in ('mmdet', 'mmseg', 'mmpretrain'):
            paths += sorted(shipped_configs(package).glob('[a-r]*/*.py'))[::100]
        for path in paths:
            warn_of_unread_names(Config.fromfile(path, import_custom_modules=False))
            assert not logged, path
