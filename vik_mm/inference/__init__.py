"""A trained model, from pictures to predictions."""

from .predictor import Predictor

__all__ = ['Predictor']
