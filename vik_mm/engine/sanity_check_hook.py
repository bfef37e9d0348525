"""Looks at data sets, batches and checkpoints for what would train nonsense or end in a riddle."""

import os
from collections.abc import Iterator

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from vik_mm.errors import BadInputError

from .damaged_files import DamageReport, GuardedPipeline

# Labels of pixels that count for nothing.
_IGNORED_LABEL = 255


@HOOKS.register_module()
class SanityCheckHook(Hook):
    """Stop with a clear error where data, model and checkpoint do not fit.

    Before the first iteration: the classes of the data set against the heads' ``num_classes`` and against the
    categories of its annotation file, and whether every image that it names is there. In every iteration: whether label
    maps hold classes that there are not. A checkpoint none of whose names are the model's is refused, where MMEngine
    would load nothing and go on. ``tools/train.py`` and ``tools/test.py`` add this hook.

    An image or annotation that a pipeline fails on is named. In training, another takes the place of one that cannot be
    loaded, as long as there are few of them; the log ends with their number.

    Args:
        max_damaged (float): Share of a training set that may be left out, from 0 to 1. Defaults to 0.01.

    Raises:
        BadInputError: At the first thing found.
        ValueError: If ``max_damaged`` is no share.
    """

    priority = 'VERY_HIGH'

    def __init__(self, max_damaged: float = 0.01):
        if not 0 <= max_damaged <= 1:
            raise ValueError(f'max_damaged={max_damaged} must be a share from 0 to 1')
        self.max_damaged = max_damaged
        self._report = DamageReport()

    def before_train(self, runner):
        """Check the training set; the loader exists by now."""
        self._check_loader(runner, runner.train_dataloader)

    def before_val(self, runner):
        """Check the validation set."""
        self._check_loader(runner, runner.val_dataloader)

    def before_test(self, runner):
        """Check the test set."""
        self._check_loader(runner, runner.test_dataloader)

    def after_load_checkpoint(self, runner, checkpoint):
        """Refuse a checkpoint of which nothing would be loaded."""
        names = list(checkpoint.get('state_dict', checkpoint))
        model = runner.model.module if hasattr(runner.model, 'module') else runner.model
        # Not the state dict: of a divided model it is for all processes to gather.
        own = [name.replace('_fsdp_wrapped_module.', '') for name, _ in model.named_parameters()]
        if own and not set(own) & {name.removeprefix('module.') for name in names}:
            raise BadInputError(
                f'nothing in the checkpoint fits the model: it has {", ".join(names[:3])}, ..., the model has '
                f'{", ".join(own[:3])}, ...; to load a backbone alone, set model.backbone.init_cfg with a prefix'
            )

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Check the labels of a batch, still on the CPU: a GPU would say 'device-side assert'."""
        _check_labels(data_batch, self._num_classes)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Log the files that had to be left out."""
        self._report.update()

    def after_train(self, runner):
        """Log how many there were."""
        self._report.summarise()

    before_val_iter = before_train_iter
    before_test_iter = before_train_iter

    def _check_loader(self, runner, loader):
        if getattr(self, '_checked', None) is loader:
            return
        model = runner.model.module if hasattr(runner.model, 'module') else runner.model
        self._num_classes = _num_classes(model)
        for dataset in _leaves(loader.dataset):
            dataset.full_init()
            _check_classes(dataset, self._num_classes)
            if is_main_process():
                _check_images(dataset)
            if not isinstance(dataset.pipeline, GuardedPipeline):
                dataset.pipeline = GuardedPipeline(dataset.pipeline, dataset, self.max_damaged)
                self._report.watch(dataset)
        self._checked = loader


def _leaves(dataset) -> Iterator:
    if hasattr(dataset, 'datasets'):
        for inner in dataset.datasets:
            yield from _leaves(inner)
    elif hasattr(dataset, 'dataset'):
        yield from _leaves(dataset.dataset)
    elif hasattr(dataset, 'full_init'):
        yield dataset


def _num_classes(model: nn.Module) -> int | None:
    """Number of classes that the heads tell apart, or None where they do not agree or do not say."""
    found = set()
    for name, module in model.named_modules():
        # RPNs tell objects from ground, whatever the classes.
        if 'rpn' not in name and 'head' in name and isinstance(getattr(module, 'num_classes', None), int):
            found.add(module.num_classes)
    return found.pop() if len(found) == 1 else None


def _check_classes(dataset, num_classes: int | None) -> None:
    classes = dataset.metainfo.get('classes')
    where = getattr(dataset, 'ann_file', '') or getattr(dataset, 'data_root', '')
    if classes is None:
        return
    if num_classes is not None and len(classes) != num_classes:
        raise BadInputError(
            f'the data set ({type(dataset).__name__}, {where}) has {len(classes)} classes and the model has heads for '
            f'{num_classes}; set num_classes={len(classes)} in the heads, or metainfo=dict(classes=...) in the data set'
        )
    cat_ids = getattr(dataset, 'cat_ids', None)
    if cat_ids is not None and len(cat_ids) != len(classes):
        raise BadInputError(
            f'{where} has categories for {len(cat_ids)} of the {len(classes)} classes of the data set '
            f'({", ".join(map(str, classes[:5]))}, ...): labels would be numbered wrongly; give '
            'metainfo=dict(classes=...) with the names in the file'
        )


def _check_images(dataset) -> None:
    listings = {}
    for k in range(len(dataset)):
        path = dataset.get_data_info(k).get('img_path')
        if not isinstance(path, str) or '://' in path:
            return
        folder, name = os.path.split(path)
        if folder not in listings:
            listings[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listings[folder]:
            source = getattr(dataset, 'ann_file', '') or 'the data set'
            raise BadInputError(
                f'{source} names the image {path}, which does not exist; put it there, correct data_prefix, or take it '
                'out of the annotations'
            )


def _check_labels(data_batch, num_classes: int | None) -> None:
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    if num_classes is None or not isinstance(samples, (list, tuple)):
        return
    for sample in samples:
        labels = getattr(getattr(sample, 'gt_sem_seg', None), 'data', None)
        if labels is None:
            continue
        worst = int(labels.masked_fill(labels == _IGNORED_LABEL, 0).max())
        if worst >= num_classes:
            raise BadInputError(
                f'{sample.metainfo.get("seg_map_path", "a label map")} holds the label {worst}, and the model has '
                f'classes 0 to {num_classes - 1} ({_IGNORED_LABEL} is ignored); correct the map, num_classes, or '
                'reduce_zero_label'
            )
