"""Looks at data sets, batches and checkpoints for what would train nonsense or end in a riddle."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import all_reduce, broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import nn

from vik_mm.datasets.coco_file import suggest
from vik_mm.datasets.label_maps import explain_channels, explain_label
from vik_mm.datasets.nesting import innermost
from vik_mm.datasets.summary import Summary, check_while_reading, summarise
from vik_mm.datasets.unreadable_files import DamageReport, GuardedPipeline
from vik_mm.errors import BadInputError

# Batches of a training's beginning in which every pixel may be ignored.
_PATIENCE = 10


@HOOKS.register_module()
class SanityCheckHook(Hook):
    """Stop with a clear error where data, model and checkpoint do not fit.

    While a data set is read: whether its annotation file can be used at all. Before the first iteration, for training
    and validation set: classes against the heads' ``num_classes`` and against the categories of the annotation file,
    whether every image that it names is there, and whether there is something to learn. Two lines of the log say how
    many images and objects are used, and what is left out and why. In every iteration: whether label maps hold
    classes that there are not. A checkpoint none of whose names are the model's is refused, where MMEngine would load
    nothing and go on.

    An image or annotation that a pipeline fails on is named. In training, another takes the place of one that cannot be
    loaded, as long as there are few of them; the log ends with their number.

    Args:
        max_damaged (float): Share of a training set that may be left out, from 0 to 1. Unless it is 0, one image may,
            however small the set is. Defaults to 0.01.

    Raises:
        BadInputError: At the first thing found, if a run has two of these hooks, or if ``max_damaged`` is no share.
    """

    priority = 'VERY_HIGH'

    def __init__(self, max_damaged: float = 0.01):
        if not 0 <= max_damaged <= 1:
            raise BadInputError(f'max_damaged={max_damaged} must be a share from 0 to 1')
        self.max_damaged = max_damaged
        self._report = DamageReport()
        self._checked: list = []
        self._orders: dict[str, list[str]] = {}
        self._batches, self._ignored_batches = 0, 0  # of label maps, at the beginning
        check_while_reading()

    def before_run(self, runner):
        """Make sure that there is no other such hook, whose ``max_damaged`` would be the one that counts."""
        if sum(isinstance(hook, SanityCheckHook) for hook in runner.hooks) > 1:
            raise BadInputError(
                'default_hooks.sanity_check has a SanityCheckHook already: set its arguments there, as in '
                'default_hooks=dict(sanity_check=dict(max_damaged=0.05)), and take it out of custom_hooks'
            )

    def before_train(self, runner):
        """Check the training set and, before time goes into training, the validation set; the loaders exist by now."""
        runner.register_hook(_GuardHook(self._report))
        self._check_loader(runner, runner.train_dataloader, 'train')
        if hasattr(runner.val_loop, 'dataloader'):
            self._check_loader(runner, runner.val_dataloader, 'val')

    def before_val(self, runner):
        """Check the validation set."""
        self._check_loader(runner, runner.val_dataloader, 'val')

    def before_test(self, runner):
        """Check the test set."""
        self._check_loader(runner, runner.test_dataloader, 'test')

    def after_load_checkpoint(self, runner, checkpoint):
        """Refuse a checkpoint of which nothing would be loaded."""
        names = list(checkpoint.get('state_dict', checkpoint))
        model = runner.model.module if hasattr(runner.model, 'module') else runner.model
        # Not the state dict: of a divided model it is for all processes to gather.
        own = [name.replace('_fsdp_wrapped_module.', '') for name, _ in model.named_parameters()]
        if own and not set(own) & {name.removeprefix('module.') for name in names}:
            raise BadInputError(
                f'nothing in the checkpoint fits the model: it has {", ".join(names[:3])}, ..., the model has '
                f'{", ".join(own[:3])}, ...; to load only a backbone, set model.backbone.init_cfg with a prefix'
            )

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Check the labels of a batch, still on the CPU: a GPU would say 'device-side assert'."""
        has_labels = _check_labels(data_batch, self._num_classes, self._ignore_index)
        if self._batches == _PATIENCE or has_labels is None:
            return
        self._batches += 1
        self._ignored_batches += not has_labels
        if self._batches < _PATIENCE:
            return
        # All processes come here after the same iteration, and only labels that none of them has had end the run.
        least = torch.tensor(self._ignored_batches)
        all_reduce(least, 'min')
        if int(least) == _PATIENCE:
            raise BadInputError(
                f'every pixel of the first {_PATIENCE} batches is ignored (label {self._ignore_index}): there is '
                'nothing to learn; look at the label maps, reduce_zero_label, and the crops of the pipeline'
            )

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        """Check the labels of a batch."""
        _check_labels(data_batch, self._num_classes, self._ignore_index)

    before_test_iter = before_val_iter

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Log the files that had to be left out."""
        self._report.update()

    def after_train(self, runner):
        """Log how many there were."""
        self._report.summarise()

    def _check_loader(self, runner, loader, split):
        if any(loader is other for other in self._checked):
            return
        model = runner.model.module if hasattr(runner.model, 'module') else runner.model
        self._num_classes, self._ignore_index = _num_classes(model), _ignore_index(model)
        for dataset in innermost(loader.dataset):
            dataset.full_init()
            _check_classes(dataset, self._num_classes)
            self._report_on(dataset, split)
            if not isinstance(dataset.pipeline, GuardedPipeline):
                self._report.watch(dataset, self.max_damaged)
        self._checked.append(loader)

    def _report_on(self, dataset, split):
        """Log what of a data set is used; one process finds it out, and all end if it refuses the data set."""
        summary = _on_main_process(lambda: summarise(dataset, self._num_classes, self._ignore_index))
        # Only the main process has used it up.
        vars(dataset).pop('coco_file', None)
        for line in summary.lines(split):
            print_log(line, logger='current')
        for warning in summary.warnings:
            print_log(f'{split}: {warning}', logger='current', level=logging.WARNING)
        self._check_order(summary, split)

    def _check_order(self, summary: Summary, split):
        """Labels are numbered by the order of the categories in each file."""
        if summary.classes is None:
            return
        for other, order in self._orders.items():
            if order != summary.classes and set(order) == set(summary.classes):
                raise BadInputError(
                    f'the annotation files of {other} and {split} have their categories in different orders '
                    f'({", ".join(order[:5])} and {", ".join(summary.classes[:5])}): labels have the order of '
                    'the file, so an evaluation would compare one class with another; write one as the other'
                )
        self._orders[split] = summary.classes


class _GuardHook(Hook):
    """Guards pipelines that other hooks replace at the beginning of an epoch, before their images are loaded."""

    priority = 'LOWEST'

    def __init__(self, report: DamageReport):
        self.report = report

    def before_train_epoch(self, runner):
        self.report.guard_again()


def _on_main_process(find: Callable[[], Summary]) -> Summary:
    """Let one process look at the files; what it raises, all raise, so that none waits for it."""
    summary: Any = None
    error: Exception | None = None
    if is_main_process():
        try:
            summary = find()
        except Exception as raised:
            error = raised
    if get_world_size() > 1:
        # Not every exception can be sent.
        box = [(summary, error and str(error), isinstance(error, BadInputError))]
        broadcast_object_list(box)
        summary, text, is_bad_input = box[0]
        if text is not None and error is None:
            error = BadInputError(text) if is_bad_input else RuntimeError(f'the main process failed: {text}')
    if error:
        raise error
    return summary


def _num_classes(model: nn.Module) -> int | None:
    """Number of classes that the heads tell apart, or None where they do not agree or do not say."""
    found = set()
    for name, module in model.named_modules():
        # RPNs tell objects from ground, whatever the classes.
        if 'rpn' not in name and 'head' in name and isinstance(getattr(module, 'num_classes', None), int):
            found.add(module.num_classes)
    return found.pop() if len(found) == 1 else None


def _ignore_index(model: nn.Module) -> int:
    """Label of pixels that count for nothing, which decode heads know."""
    for name, module in model.named_modules():
        index = getattr(module, 'ignore_index', None)
        if 'head' in name and isinstance(index, int) and 0 <= index < 256:
            return index
    return 255


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
            f'({", ".join(map(str, classes[:5]))}, ...): labels would be numbered wrongly{_names_meant(dataset)}; give '
            'metainfo=dict(classes=...) with the names in the file'
        )


def _names_meant(dataset) -> str:
    file = getattr(dataset, 'coco_file', None)
    if file is None:
        return ''
    missing = [name for name in dataset.metainfo['classes'] if name not in file.names]
    return f'; the file has no {", ".join(missing[:5])}{suggest(missing, file.names)}'


def _check_labels(data_batch, num_classes: int | None, ignore_index: int) -> bool | None:
    """Refuse labels that are no class; tell whether any pixel counts, or None where there are no label maps."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    if num_classes is None or not isinstance(samples, (list, tuple)):
        return None
    has_labels = None
    for sample in samples:
        labels = getattr(getattr(sample, 'gt_sem_seg', None), 'data', None)
        if labels is None:
            continue
        path = sample.metainfo.get('seg_map_path', 'a label map')
        if labels.ndim == 3 and labels.shape[0] != 1:
            raise explain_channels(path, labels.numpy())
        counts = labels != ignore_index
        has_labels = bool(has_labels) or bool(counts.any())
        worst = int(labels.masked_fill(~counts, 0).max())
        if worst >= num_classes:
            raise explain_label(path, worst, num_classes, ignore_index)
    return has_labels
