"""What the checks around a run promise: folders of images, evaluators, damaged files, what stands in the log."""

import json
import multiprocessing
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, init_default_scope
from mmengine.structures import BaseDataElement, PixelData

from vik_mm.datasets.layouts import check_datasets
from vik_mm.datasets.summary import summarise
from vik_mm.datasets.unreadable_files import DamageReport, GuardedPipeline
from vik_mm.engine.hooks import SanityCheckHook
from vik_mm.errors import BadInputError


@pytest.fixture(autouse=True)
def scope():
    yield
    init_default_scope('mmpretrain')


@pytest.fixture
def images(tmp_path):
    """Two classes of four images."""
    for k in range(8):
        path = tmp_path / f'data/{("cat", "dog")[k % 2]}/{k}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 8, 3), k, np.uint8))
    return tmp_path / 'data'


class TestFoldersOfImages:
    def check(self, root, **options):
        dataset = dict(type='CustomDataset', data_root=str(root)) | options
        check_datasets(Config(dict(train_dataloader=dict(dataset=dataset))))

    def test_classes_and_images_pass(self, images, tmp_path):
        self.check(images)
        (tmp_path / 'links').mkdir()
        (tmp_path / 'links/cat').symlink_to(images / 'cat')
        self.check(tmp_path / 'links')
        self.check(images, metainfo=dict(classes=['cat', 'dog']))

    def test_images_without_folders_of_classes_are_refused(self, images):
        with pytest.raises(BadInputError, match=r'cat holds no folders; .* it must be .*/<class>/<image>'):
            self.check(images / 'cat')

    def test_gifs_only_are_refused_and_counted(self, images):
        for path in images.rglob('*.png'):
            path.rename(path.with_suffix('.GIF'))
        with pytest.raises(
            BadInputError, match=r'holds no image .*\.bmp.*; there are 8 \.gif: convert them, or set extensions'
        ):
            self.check(images)
        self.check(images, extensions=('.gif',))

    @pytest.mark.parametrize(
        'options', [dict(metainfo=dict(classes=['a', 'b', 'c'])), dict(type='ImageNet')], ids=['config', 'ImageNet']
    )
    def test_another_number_of_classes_is_refused(self, images, options):
        with pytest.raises(BadInputError, match=r'holds the folders of 2 classes \(cat, dog\).*num_classes=2'):
            self.check(images, **options)

    def test_the_lines_count_files_that_are_not_read(self, images):
        (images / 'dog/a.gif').touch()
        (images / 'dog/notes.txt').touch()
        (images / 'dog/.hidden').touch()
        (images / 'emu').mkdir()
        (images / 'emu/b.gif').touch()
        init_default_scope('mmpretrain')
        found = summarise(DATASETS.build(dict(type='CustomDataset', data_root=str(images))), 3, 255)
        assert found.lines('train') == [
            f'train: 8 images, 3 classes ({images}/)',
            'train: left out: 3 files of other types (2 .gif, 1 .txt)',
        ]
        unread, absent = found.warnings
        assert unread.startswith('.gif files are not read, the data set reads .bmp, .jpeg, ')
        assert absent == '1 of 3 classes never occur: the data set has no image of emu'


def test_each_data_set_within_wrappers_has_its_lines(images, monkeypatch):
    init_default_scope('mmpretrain')
    one = dict(type='CustomDataset', data_root=str(images))
    both = dict(type='ConcatDataset', datasets=[one, one])
    dataset = DATASETS.build(dict(type='RepeatDataset', times=3, dataset=both))
    lines = []
    monkeypatch.setattr('vik_mm.engine.hooks.sanity_check_hook.print_log', lambda line, **_: lines.append(line))
    loader = SimpleNamespace(dataset=dataset)
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1), train_dataloader=loader, val_loop=None, register_hook=print)
    SanityCheckHook().before_train(runner)
    assert lines == [f'train: 8 images, 2 classes ({images}/)', 'train: left out: nothing'] * 2


def test_a_check_that_fails_in_one_process_ends_all(images, tmp_path):
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(dict(type='CustomDataset', data_root=str(images)))
    (images / 'cat/0.png').unlink()
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1), test_dataloader=SimpleNamespace(dataset=dataset))

    def check(rank):
        torch.distributed.init_process_group('gloo', f'file://{tmp_path}/store', rank=rank, world_size=2)
        try:
            SanityCheckHook().before_test(runner)
        except BadInputError as error:
            (tmp_path / f'error_{rank}').write_text(str(error))

    fork = multiprocessing.get_context('fork')
    processes = [fork.Process(target=check, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    for rank in range(2):
        assert 'cat/0.png, which does not exist' in (tmp_path / f'error_{rank}').read_text()


class TestEvaluators:
    @pytest.fixture
    def check(self, tmp_path, shapes_folder):
        own = shapes_folder / 'coco/annotations/instances_val2017.json'

        def check(change):
            content = json.loads(own.read_text())
            content = change(content) or content
            other = tmp_path / 'other.json'
            other.write_text(content if isinstance(content, str) else json.dumps(content))
            dataset = dict(type='CocoDataset', ann_file=str(own))
            evaluator = dict(type='CocoMetric', ann_file=str(other))
            check_datasets(Config(dict(val_dataloader=dict(dataset=dataset), val_evaluator=evaluator)))

        return check

    def test_a_copy_passes(self, check):
        check(lambda content: None)

    def test_another_order_of_categories_is_refused(self, check):
        with pytest.raises(BadInputError, match=r'labels are numbered in that order: set val_evaluator.ann_file='):
            check(lambda content: content['categories'].reverse())

    def test_images_that_it_lacks_are_refused(self, check):
        with pytest.raises(BadInputError, match=r'lacks 2 of the 8 images of the data set .*, image \S+ for one'):
            check(lambda content: content.update(images=content['images'][2:]))

    def test_a_broken_file_is_named(self, check):
        with pytest.raises(BadInputError, match='other.json cannot be read as a COCO annotation file'):
            check(lambda content: json.dumps(content)[:100])


@HOOKS.register_module()
class RaiseHook(Hook):
    """Ends a run before its first iteration."""

    def before_train_epoch(self, runner):
        raise BadInputError('not one step')


class Load:
    backend_args = None

    def __call__(self, data):
        if data['img_path'].startswith('damaged'):
            raise ValueError('cut off')
        return {**data, 'img': 0}


class Compute:
    def __call__(self, data):
        if data['img_path'] == 'odd':
            raise ValueError('too narrow')
        return data


class Images:
    test_mode = False

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def get_data_info(self, sample):
        return {}


def guard(size, max_damaged=0.01, test_mode=False, transforms=(Load, Compute)):
    dataset = Images(size)
    dataset.test_mode = test_mode
    return GuardedPipeline(Compose([make() for make in transforms]), dataset, max_damaged)


class TestDamagedFiles:
    @pytest.mark.parametrize(('size', 'allowed'), [(2, 1), (48, 1), (199, 1), (200, 2), (5000, 50)])
    def test_small_data_sets_may_lose_one_image(self, size, allowed):
        pipeline = guard(size)
        for k in range(allowed):
            assert pipeline(dict(img_path='damaged', sample_idx=k)) is None
        if allowed < size:
            with pytest.raises(
                BadInputError, match=rf'more than {allowed} of {size} .* max_damaged=0.01 allows: default_hooks='
            ):
                pipeline(dict(img_path='damaged', sample_idx=allowed))

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (dict(max_damaged=0), 'max_damaged=0 allows'),
            (dict(test_mode=True), 'an evaluation needs all of its images'),
        ],
        ids=['max_damaged=0', 'evaluation'],
    )
    def test_where_none_may_be_damaged_the_first_ends_the_run(self, options, message):
        with pytest.raises(BadInputError, match=rf'damaged.png cannot be used \(cut off\).*{message}'):
            guard(48, **options)(dict(img_path='damaged.png', sample_idx=0))

    @pytest.mark.parametrize(
        'transforms', [(Load, Compute), (lambda: Compose([Load(), Compute()]),)], ids=['flat', 'nested']
    )
    def test_a_transform_that_computes_and_fails_is_no_damaged_file(self, transforms):
        pipeline = guard(5000, transforms=transforms)
        with pytest.raises(
            RuntimeError, match='the files can be read, and a transform fails on odd: too narrow'
        ) as error:
            pipeline(dict(img_path='odd', sample_idx=0))
        assert not isinstance(error.value, BadInputError)
        assert not pipeline.is_damaged.any()
        assert pipeline(dict(img_path='damaged', sample_idx=1)) is None

    def test_a_pipeline_that_a_hook_puts_in_its_place_is_guarded_again(self):
        dataset, report = Images(200), DamageReport()
        dataset.pipeline = Compose([Load()])
        report.watch(dataset, 0.01)
        assert dataset.pipeline(dict(img_path='damaged', sample_idx=0)) is None
        dataset.pipeline = Compose([Load()])  # as PipelineSwitchHook and SwitchRecipeHook do
        report.update()
        report.guard_again()
        assert dataset.pipeline(dict(img_path='damaged', sample_idx=1)) is None
        with pytest.raises(BadInputError, match='more than 2 of 200'):
            dataset.pipeline(dict(img_path='damaged', sample_idx=2))

    def test_a_loader_of_a_users_own_is_known_by_its_place(self):
        class Own(Load):
            pass

        del Load.backend_args
        try:
            assert guard(10, transforms=(Own, Compute))(dict(img_path='damaged', sample_idx=0)) is None
        finally:
            Load.backend_args = None


class TestBatches:
    @pytest.fixture
    def hook(self):
        hook = SanityCheckHook()
        hook._num_classes, hook._ignore_index = 2, 255
        return hook

    def batch(self, *labels):
        sample = BaseDataElement(metainfo=dict(seg_map_path='a.png'))
        sample.gt_sem_seg = PixelData(data=torch.tensor(labels)[None, None])
        return dict(data_samples=[sample])

    def test_ten_batches_without_a_label_end_the_run(self, hook):
        for _ in range(9):
            hook.before_train_iter(None, 0, self.batch(255, 255))
        with pytest.raises(BadInputError, match='every pixel of the first 10 batches is ignored'):
            hook.before_train_iter(None, 0, self.batch(255, 255))

    def test_labels_of_another_process_are_enough(self, hook, monkeypatch):
        agreed = []
        monkeypatch.setattr(f'{SanityCheckHook.__module__}.all_reduce', lambda least, _: agreed.append(least.fill_(9)))
        for _ in range(30):
            hook.before_train_iter(None, 0, self.batch(255, 255))
        assert len(agreed) == 1

    def test_processes_with_labels_agree_too_and_none_waits_for_another(self, hook, monkeypatch):
        agreed = []
        monkeypatch.setattr(f'{SanityCheckHook.__module__}.all_reduce', lambda least, _: agreed.append(int(least)))
        for k in range(30):
            hook.before_train_iter(None, 0, self.batch(*((0, 255) if k == 4 else (255, 255))))
        assert agreed == [9]

    def test_batches_without_a_label_are_legal_once_one_had_some(self, hook):
        hook.before_train_iter(None, 0, self.batch(0, 255))
        for _ in range(30):
            hook.before_train_iter(None, 0, self.batch(255, 255))

    def test_a_picture_in_the_place_of_a_map_is_named(self, hook):
        sample = BaseDataElement(metainfo=dict(seg_map_path='a.png'))
        sample.gt_sem_seg = PixelData(data=torch.zeros(4, 5, 3))
        with pytest.raises(BadInputError, match='a.png has 3 channels; a label map must have one channel'):
            hook.before_train_iter(None, 0, dict(data_samples=[sample]))


def test_two_lines_of_each_data_set_stand_in_the_log_before_training(make_config, call_tool):
    code, text = call_tool('train.py', make_config('classification', "custom_hooks = [dict(type='RaiseHook')]\n"))
    assert code == 'error: not one step'
    for line in (
        'train: 16 images, 8 classes',
        'train: left out: nothing',
        'val: 8 images, 8 classes',
        'val: left out: ',
    ):
        assert line in text


def test_training_and_validation_with_other_orders_of_categories_are_refused(
    tmp_path, shapes_folder, make_config, call_tool
):
    data = shutil.copytree(shapes_folder / 'coco', tmp_path / 'coco')
    file = data / 'annotations/instances_val2017.json'
    content = json.loads(file.read_text())
    content['categories'].reverse()
    file.write_text(json.dumps(content))
    config = make_config('detection')
    config.write_text(config.read_text().replace(f'{shapes_folder}/coco', str(data)))
    code, text = call_tool('train.py', config)
    assert 'the annotation files of train and val have their categories in different orders' in code
    assert 'train: 16 images, ' in text
    assert 'train: left out: ' in text


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_a_data_set_that_trains_nothing_is_one_line_of_a_tool(tmp_path, shapes_folder, make_config, call_tool, task):
    folder = dict(detection='coco', segmentation='ade20k')[task]
    data = shutil.copytree(shapes_folder / folder, tmp_path / folder)
    if task == 'detection':
        file = data / 'annotations/instances_train2017.json'
        content = json.loads(file.read_text())
        for annotation in content['annotations']:
            annotation['bbox'] = [float('nan')] * 4
        file.write_text(json.dumps(content))
    else:
        for path in (data / 'annotations/training').iterdir():
            cv2.imwrite(str(path), np.zeros((64, 64), np.uint8))
    config = make_config(task)
    config.write_text(config.read_text().replace(f'{shapes_folder}/{folder}', str(data)))
    code, _ = call_tool('train.py', config)
    assert code.startswith('error: ') and '\n' not in code
    expected = dict(detection='with NaN in their box (annotation', segmentation='every pixel of the label maps in')
    assert expected[task] in code
