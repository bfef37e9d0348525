"""Files that cannot be read: named, counted, and left out of training as long as they are few."""

import logging
import traceback

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log

from vik_mm.errors import BadInputError


class GuardedPipeline:
    """A pipeline that says which file it failed on, and goes on without it where that does no harm.

    Args:
        pipeline (Callable): The data set's.
        dataset (BaseDataset): Whose samples it takes.
        max_damaged (float): Share of the data set whose files may fail to load; such a sample is None, for which data
            sets of training take another. Of a data set in test mode none may: scores of fewer images are others.
    """

    def __init__(self, pipeline, dataset, max_damaged: float):
        self.pipeline = pipeline
        self.limit = 0 if dataset.test_mode else int(max_damaged * len(dataset))
        # In memory that the loader's processes share with this one.
        self.is_damaged = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()

    def __getattr__(self, name):
        if name.startswith('__') or name == 'pipeline':
            raise AttributeError(name)
        return getattr(self.pipeline, name)

    def __call__(self, data):
        """Run the pipeline; None is for a sample that is left out."""
        # Read now: transforms change the dict.
        files = [data[key] for key in ('img_path', 'seg_map_path') if isinstance(data.get(key), str)]
        sample = data.get('sample_idx')
        try:
            return self.pipeline(data)
        except Exception as error:
            if isinstance(sample, int) and _is_about_loading(error):
                self.is_damaged[sample] = True
                if int(self.is_damaged.sum()) <= self.limit:
                    return None
            name = ' or '.join(files) or f'sample {sample}'
            reason = ' '.join(str(error).split()) or type(error).__name__
            remedy = 'mend the file, or take it out of the data set'
            if self.limit:
                remedy += f'; more than {self.limit} of {len(self.is_damaged)} samples are damaged'
            raise BadInputError(f'{name} cannot be used ({reason}): {remedy}') from error


class DamageReport:
    """Logs what guarded pipelines left out: each file when it is met, and all of them at the end."""

    def __init__(self):
        self._guarded: list = []

    def watch(self, dataset) -> None:
        """Take up a data set whose pipeline is guarded."""
        self._guarded.append((dataset, torch.zeros_like(dataset.pipeline.is_damaged)))

    def update(self) -> None:
        """Log the files that are new; errors are what all processes log, not the main one alone."""
        for dataset, known in self._guarded:
            for sample in (dataset.pipeline.is_damaged & ~known).nonzero().flatten().tolist():
                known[sample] = True
                name = dataset.get_data_info(sample).get('img_path', f'sample {sample}')
                print_log(f'{name} is damaged; another image takes its place', logger='current', level=logging.ERROR)

    def summarise(self) -> None:
        """Log how many there were, counted over all processes."""
        for dataset, _ in self._guarded:
            flags = dataset.pipeline.is_damaged.to(torch.uint8, copy=True)
            all_reduce(flags, 'max')
            if count := int(flags.sum()):
                print_log(
                    f'{count} of {len(flags)} samples were damaged and left out; their names are above',
                    logger='current',
                    level=logging.WARNING,
                )


def _is_about_loading(error: Exception) -> bool:
    """Tell whether a transform that loads files has failed, rather than one that computes."""
    frames = (frame.f_locals.get('self') for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(type(owner).__name__.startswith('Load') for owner in frames)
