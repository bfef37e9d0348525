"""Masks of objects as run lengths (COCO's code): a few hundred bytes each, whatever the size of the picture."""

from typing import Any

import numpy as np

MaskCode = dict[str, Any]
"""``size`` [height, width] and ``counts``, bytes, as pycocotools has it."""


def encode(mask: np.ndarray, left: int = 0, top: int = 0, size: tuple[int, int] | None = None) -> MaskCode:
    """Encode a mask, or the part of one that a window shows.

    Args:
        mask (np.ndarray): ``[h, w]``, bool.
        left (int): The window's first column in the picture. Defaults to 0.
        top (int): Its first row. Defaults to 0.
        size (tuple[int, int], optional): Height and width of the picture; None for the mask's own. Defaults to None.

    Returns:
        MaskCode: Of the whole picture.
    """
    return encode_all(mask[None], left, top, size)[0]


def encode_all(masks: np.ndarray, left: int = 0, top: int = 0, size: tuple[int, int] | None = None) -> list[MaskCode]:
    """Encode the masks that a window shows; the picture around it is never made.

    Args:
        masks (np.ndarray): ``[N, h, w]``, bool.
        left (int): The window's first column in the picture. Defaults to 0.
        top (int): Its first row. Defaults to 0.
        size (tuple[int, int], optional): Height and width of the picture; None for the masks' own. Defaults to None.

    Returns:
        list[MaskCode]: Of the whole picture.
    """
    from pycocotools import mask as coco

    count, rows, columns = masks.shape
    height, width = size or (rows, columns)
    if not count or not rows or not columns:
        empty = dict(size=[height, width], counts=[height * width])
        return coco.frPyObjects([empty] * count, height, width) if count else []
    # Run lengths go down the columns: each begins and ends in the window.
    down = masks.astype(bool, copy=False).transpose(0, 2, 1)
    changes = np.empty((count, columns, rows + 1), bool)
    changes[..., 0], changes[..., -1] = down[..., 0], down[..., -1]
    np.not_equal(down[..., 1:], down[..., :-1], out=changes[..., 1:-1])
    number, column, row = np.nonzero(changes)
    places = (left + column) * height + top + row
    # Where a run ends a column of the picture and the next one begins at its top, it goes on.
    goes_on = np.zeros(len(places) + 1, bool)
    goes_on[1:-1] = (np.diff(places) == 0) & (np.diff(number) == 0)
    kept = ~(goes_on[1:] | goes_on[:-1]) & (places < height * width)
    parts = np.split(places[kept], np.searchsorted(number[kept], np.arange(1, count)))
    counts = (np.diff(part, prepend=0, append=height * width) for part in parts)
    return coco.frPyObjects([dict(size=[height, width], counts=each.tolist()) for each in counts], height, width)


def decode(codes: list[MaskCode], size: tuple[int, int]) -> np.ndarray:
    """Decode masks of one picture.

    Args:
        codes (list[MaskCode]): Of :func:`encode`.
        size (tuple[int, int]): Height and width of the picture.

    Returns:
        np.ndarray: ``[N, height, width]``, bool.
    """
    from pycocotools import mask as coco

    if not codes:
        return np.zeros((0, *size), bool)
    return np.ascontiguousarray(coco.decode(codes).transpose(2, 0, 1)).astype(bool)


def unite(codes: list[MaskCode]) -> MaskCode:
    """Join masks of one picture: each pixel that one of them has.

    Args:
        codes (list[MaskCode]): At least one.

    Returns:
        MaskCode: The union.
    """
    from pycocotools import mask as coco

    return codes[0] if len(codes) == 1 else coco.merge(codes, intersect=False)


def as_json(code: MaskCode) -> dict[str, Any]:
    """Write a mask as JSON takes it.

    Args:
        code (MaskCode): Of :func:`encode`.

    Returns:
        dict[str, Any]: ``size`` as numbers and ``counts`` as text.
    """
    return dict(size=[int(side) for side in code['size']], counts=code['counts'].decode())
