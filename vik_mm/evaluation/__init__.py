"""Figures of a trained model on its data; :mod:`vik_mm.visualization` makes a report of them."""

from .coco import AveragePrecision, average_precision
from .report_data import Evaluation
from .running import build_test_runner, evaluate, prepare_test, select_split

__all__ = [
    'AveragePrecision',
    'Evaluation',
    'average_precision',
    'build_test_runner',
    'evaluate',
    'prepare_test',
    'select_split',
]
