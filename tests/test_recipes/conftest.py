import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from vik_mm.config import fit_to_machine
from vik_mm.datasets.folders import PreparedData, PreparedSplit
from vik_mm.engine.runner import complete_config


@pytest.fixture(scope='session')
def prepare_shapes(shapes_folder, tmp_path_factory):
    """The built-in shapes in the form that users' folders are brought into."""

    def coco_split(split):
        folder = shapes_folder / 'coco'
        return folder / f'annotations/instances_{split}2017.json', folder / f'{split}2017'

    def prepare(task, classes=None):
        lists = tmp_path_factory.mktemp('lists')
        names = ('circle', 'crescent', 'cross', 'heart', 'ring', 'square', 'star', 'triangle')
        sizes, boxes, label_maps = np.full((16, 2), 64), np.zeros((0, 2)), None
        if task in ('detection', 'instance'):
            splits = {}
            for split in ('train', 'val'):
                file, images = coco_split(split)
                content = json.loads(file.read_text())
                for image in content['images']:
                    image['file_name'] = f'{images.name}/{image["file_name"]}'
                if classes:
                    for category, name in zip(content['categories'], classes):
                        category['name'] = name
                if split == 'train':
                    boxes = np.array([each['bbox'][2:] for each in content['annotations']])
                target = lists / f'{split}.json'
                target.write_text(json.dumps(content))
                splits[split] = PreparedSplit(target, len(content['images']))
            root = shapes_folder / 'coco'
        elif task == 'classification':
            root, splits = shapes_folder / 'imagenet', {}
            for split in ('train', 'val'):
                files = sorted((root / split).glob('*/*.png'))
                lines = [f'{file.relative_to(root)} {names.index(file.parent.name)}' for file in files]
                (lists / f'{split}.txt').write_text('\n'.join(lines))
                splits[split] = PreparedSplit(lists / f'{split}.txt', len(files))
        else:
            import cv2

            names, root, splits = ('ground', *names), shapes_folder / 'ade20k/images', {}
            label_maps = lists / 'maps'
            for split, folder in (('train', 'training'), ('val', 'validation')):
                files = sorted((root / folder).glob('*.png'))
                for file in files:
                    old = cv2.imread(str(root.parent / 'annotations' / folder / file.name), cv2.IMREAD_UNCHANGED)
                    target = label_maps / folder / f'{file.name}.png'
                    target.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(target), old - 1)  # 0, no label, becomes 255
                (lists / f'{split}.txt').write_text('\n'.join(str(file.relative_to(root)) for file in files))
                splits[split] = PreparedSplit(lists / f'{split}.txt', len(files))
        return PreparedData(
            'shapes', Path(shapes_folder), task, tuple(classes or names), root, splits, sizes, boxes, label_maps,
            (f'{task}: 16 images to train, 8 to val',),
        )  # fmt: skip

    return prepare


@pytest.fixture
def run_config(tmp_path):
    """Train a config in this process for two iterations, and return the Runner."""

    def run(path, arch, **more):
        cfg = Config.fromfile(path)
        cfg.work_dir = str(tmp_path / 'run')
        cfg.train_cfg = dict(type='ResumableIterLoop', max_iters=2, val_interval=2)
        cfg.param_scheduler = []
        cfg.log_processor.by_epoch = False
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2)
        for split in ('train', 'val', 'test'):
            cfg[f'{split}_dataloader'].update(num_workers=0)
        cfg.train_dataloader.batch_size = 2
        cfg.train_dataloader.sampler.type = 'InfiniteSampler'
        cfg.experiment_name = f'run{id(cfg)}'
        cfg.model.backbone.arch = arch
        cfg.merge_from_dict(more)
        complete_config(cfg)
        fit_to_machine(cfg)
        runner = Runner.from_cfg(cfg)
        runner.train()
        return runner

    return run
