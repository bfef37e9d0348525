"""Errors of this project; they stand in ``vik_mm_cli``, whose tools must know them before anything is imported."""

from vik_mm_cli.errors import BadInputError, BadTypeError, UnavailableError

__all__ = ['BadInputError', 'BadTypeError', 'UnavailableError']
