"""Files that cannot be read: named, counted, and left out of training as long as they are few."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log

from vik_mm.errors import BadInputError


class GuardedPipeline:
    """A pipeline that says which file it failed on, and goes on without it where that does no harm.

    Its transforms that read files are guarded one by one. If another transform fails, the files are not to blame: that
    is an error in any case, with their names in the message.

    Args:
        pipeline (Callable): The data set's; transforms within it that read files are replaced.
        dataset (BaseDataset): Whose samples it takes.
        max_damaged (float): Share of the data set whose files may fail to load; such a sample is None, for which data
            sets of training take another. One may, if the share is not 0, however small the data set. Of a data set in
            test mode none may: scores of fewer images are others.
        before (GuardedPipeline, optional): The guarded pipeline that this one replaces; what it found damaged counts.
            Defaults to None.
    """

    def __init__(self, pipeline, dataset, max_damaged: float, before: 'GuardedPipeline | None' = None):
        self.pipeline = _guard(pipeline, is_first=True)
        self.max_damaged, self.is_training = max_damaged, not dataset.test_mode
        self.limit = 0
        if self.is_training and max_damaged > 0:
            # At least one image must be left to take the place of another.
            self.limit = max(int(max_damaged * len(dataset)), min(1, len(dataset) - 1))
        # In memory that the loader's processes share with this one.
        fresh = torch.zeros(len(dataset), dtype=torch.bool)
        self.is_damaged: torch.Tensor = fresh.share_memory_() if before is None else before.is_damaged

    def __getattr__(self, name):
        if name.startswith('__') or name == 'pipeline':
            raise AttributeError(name)
        return getattr(self.pipeline, name)

    def __call__(self, data):
        """Run the pipeline; None is for a sample that is left out."""
        # Read now: transforms change the dict.
        files = [data[key] for key in ('img_path', 'seg_map_path') if isinstance(data.get(key), str)]
        sample = data.get('sample_idx')
        name = ' or '.join(files) or f'sample {sample}'
        try:
            return self.pipeline(data)
        except _UnreadableFile as error:
            if isinstance(sample, int):
                self.is_damaged[sample] = True
                if int(self.is_damaged.sum()) <= self.limit:
                    return None
            raise BadInputError(f'{name} cannot be used ({_reason(error)}): {self._remedy()}') from error
        except BadInputError:
            raise
        except Exception as error:
            raise RuntimeError(f'the files can be read, and a transform fails on {name}: {_reason(error)}') from error

    def _remedy(self) -> str:
        remedy = 'mend the file, or take it out of the data set'
        if not self.is_training:
            return f'{remedy}; an evaluation needs all of its images'
        return (
            f'{remedy}; more than {self.limit} of {len(self.is_damaged)} samples are damaged, which is what '
            f'max_damaged={self.max_damaged} allows: default_hooks=dict(sanity_check=dict(type="SanityCheckHook", '
            'max_damaged=0.05)) allows more'
        )


class DamageReport:
    """Logs what guarded pipelines left out: each file when it is met, and all of them at the end."""

    def __init__(self):
        self._guarded: list = []

    def watch(self, dataset, max_damaged: float) -> None:
        """Guard the pipeline of a data set, and take it up."""
        dataset.pipeline = guard = GuardedPipeline(dataset.pipeline, dataset, max_damaged)
        self._guarded.append((dataset, guard, torch.zeros_like(guard.is_damaged)))

    def guard_again(self) -> None:
        """Guard pipelines that a hook has put into the place of guarded ones."""
        for dataset, guard, _ in self._guarded:
            if not isinstance(dataset.pipeline, GuardedPipeline):
                dataset.pipeline = GuardedPipeline(dataset.pipeline, dataset, guard.max_damaged, guard)

    def update(self) -> None:
        """Log the files that are new; errors are what all processes log, not only the main one."""
        for dataset, guard, known in self._guarded:
            for sample in (guard.is_damaged & ~known).nonzero().flatten().tolist():
                known[sample] = True
                name = dataset.get_data_info(sample).get('img_path', f'sample {sample}')
                print_log(f'{name} is damaged; another image takes its place', logger='current', level=logging.ERROR)

    def summarise(self) -> None:
        """Log how many there were, counted over all processes."""
        for _, guard, _ in self._guarded:
            flags = guard.is_damaged.to(torch.uint8, copy=True)
            all_reduce(flags, 'max')
            if count := int(flags.sum()):
                print_log(
                    f'{count} of {len(flags)} samples were damaged and left out; their names are above',
                    logger='current',
                    level=logging.WARNING,
                )


class _UnreadableFile(Exception):
    """A transform that reads files has failed."""


class _GuardedTransform:
    """A transform that reads files, whose failures can be told from those of one that computes."""

    def __init__(self, guarded: Callable):
        self.guarded = guarded

    def __getattr__(self, name):
        if name.startswith('__') or name == 'guarded':
            raise AttributeError(name)
        return getattr(self.guarded, name)

    def __call__(self, data: dict) -> Any:
        if 'img' in data and not _has_file_backend(self.guarded):
            return self.guarded(data)  # the first of a pipeline whose images are in memory
        try:
            return self.guarded(data)
        except Exception as error:
            raise _UnreadableFile(_reason(error)) from error


def _guard(transform, is_first: bool):
    """Guard the transforms that read files, also those within other transforms."""
    inner = getattr(transform, 'transforms', None)
    if isinstance(inner, list):
        inner[:] = [_guard(each, is_first and k == 0) for k, each in enumerate(inner)]
    elif callable(inner):
        transform.transforms = _guard(inner, is_first)
    elif isinstance(transform, _GuardedTransform) or not callable(transform):
        return transform
    elif is_first or _has_file_backend(transform):
        return _GuardedTransform(transform)
    return transform


def _has_file_backend(transform) -> bool:
    """Tell whether a transform takes MMEngine's options of file backends, as those of the mm packages that read do."""
    return hasattr(transform, 'backend_args')


def _reason(error: Exception) -> str:
    return ' '.join(str(error).split()) or type(error).__name__
