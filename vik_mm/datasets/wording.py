"""Lists and numbers as sentences have them."""

from collections.abc import Iterable


def enumerate_some(values: Iterable, limit: int = 5) -> str:
    """Write the first values of many, and how many there are.

    Args:
        values (Iterable): What to list.
        limit (int): How many to write out. Defaults to 5.

    Returns:
        str: ``'a, b, c'``, or ``'a, b, ... (80 in all)'``.
    """
    values = list(map(str, values))
    if len(values) <= limit:
        return ', '.join(values)
    return f'{", ".join(values[:limit])}, ... ({len(values):,} in all)'


def count(number: int, noun: str) -> str:
    """Write ``'1 image'`` or ``'1,200 images'``."""
    return f'{number:,} {noun}' if number == 1 else f'{number:,} {noun}s'


def count_of(part: int, whole: int, noun: str) -> str:
    """Write ``'392 of 400 images'``, or ``'400 images'`` where it is all of them."""
    return count(whole, noun) if part == whole else f'{part:,} of {count(whole, noun)}'
