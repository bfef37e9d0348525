"""Looks at data sets while the mm packages read them.

Afterwards nobody can tell what they left out, or why they failed.
"""

import functools
from collections.abc import Callable
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

_watched: set[type] = set()


def watch_reading(
    on_coco_file: Callable[[BaseDataset, Any], None],
    on_unreadable: Callable[[str, Exception], Exception],
    on_no_samples: Callable[[BaseDataset], Exception],
) -> None:
    """Have data sets that are built from now on call functions while they read their annotations.

    MMDetection's is watched if its scope is the default one. The functions of the first call stay.

    Args:
        on_coco_file (Callable): Takes a ``CocoDataset`` and the content of its file, before it is used. Data sets that
            have a parser of their own are left out.
        on_unreadable (Callable): Takes the name of a file and what reading it raised; returns what to raise.
        on_no_samples (Callable): Takes a data set of which nothing is left to train on; returns what to raise.
    """
    if BaseDataset not in _watched:
        _watched.add(BaseDataset)
        _watch_samples(on_no_samples)
    scope = DefaultScope.get_current_instance()
    if scope is not None and scope.scope_name == 'mmdet':
        kind = DATASETS.get('mmdet.CocoDataset')
        if kind not in _watched:
            _watched.add(kind)
            _watch_coco(kind, on_coco_file, on_unreadable)


def _watch_samples(on_no_samples):
    serialize = BaseDataset._serialize_data

    @functools.wraps(serialize)
    def serialize_something(self):
        if not self.data_list:
            raise on_no_samples(self)
        return serialize(self)

    BaseDataset._serialize_data = serialize_something


def _watch_coco(kind, on_coco_file, on_unreadable):
    load, parse = kind.load_data_list, kind.parse_data_info

    @functools.wraps(load)
    def load_watched(self):
        if type(self).parse_data_info is not parse:
            return load(self)

        file_kind: Any = self.COCOAPI

        class WatchedFile(file_kind):
            is_read = False

            def __init__(file, annotation_file=None):
                try:
                    super().__init__(annotation_file)
                except (ValueError, RecursionError, AssertionError) as error:
                    if file.is_read:
                        raise
                    raise on_unreadable(self.ann_file, error) from error

            def createIndex(file):
                file.is_read = True
                on_coco_file(self, file.dataset)
                super().createIndex()

        self.COCOAPI = WatchedFile
        try:
            return load(self)
        finally:
            del self.COCOAPI

    kind.load_data_list = load_watched
