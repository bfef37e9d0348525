"""Pictures of what models predict and learn."""

from .predictions import draw_class_predictions

__all__ = ['draw_class_predictions']
