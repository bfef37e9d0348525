"""Pictures of what models predict and learn, and reports on them."""

from .attention import draw_attention, draw_edge_functions, draw_singular_values
from .predictions import draw_class_predictions
from .report import write_report

__all__ = [
    'draw_attention',
    'draw_class_predictions',
    'draw_edge_functions',
    'draw_singular_values',
    'write_report',
]
