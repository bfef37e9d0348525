"""Figures of a trained model on its data; :mod:`vik_mm.visualization` makes a report of them."""

from .after_training import evaluate_training, folder_of_report
from .coco import AveragePrecision, average_precision
from .report_data import Evaluation
from .running import build_test_runner, evaluate, prepare_test, select_split, use_tiles

__all__ = [
    'AveragePrecision',
    'Evaluation',
    'average_precision',
    'build_test_runner',
    'evaluate',
    'evaluate_training',
    'folder_of_report',
    'prepare_test',
    'select_split',
    'use_tiles',
]
