"""Masks of objects as run lengths (COCO's code): a few hundred bytes each, whatever the size of the picture."""

from typing import Any

import numpy as np

MaskCode = dict[str, Any]
"""``size`` [height, width] and ``counts``, bytes, as pycocotools has it."""


def encode(mask: np.ndarray, left: int = 0, top: int = 0, size: tuple[int, int] | None = None) -> MaskCode:
    """Encode a mask, or the part of one that a window shows.

    Only the window's columns are looked at; the picture around it is never made.

    Args:
        mask (np.ndarray): ``[h, w]``, bool.
        left (int): The window's first column in the picture. Defaults to 0.
        top (int): Its first row. Defaults to 0.
        size (tuple[int, int], optional): Height and width of the picture; None for the mask's own. Defaults to None.

    Returns:
        MaskCode: Of the whole picture.
    """
    from pycocotools import mask as coco

    height, width = size or mask.shape
    if mask.shape == (height, width):
        return coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    # Run lengths go down the columns. They begin with zeros.
    columns = np.zeros((mask.shape[1], height), bool)
    columns[:, top : top + mask.shape[0]] = mask.T
    flat = columns.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=False)) + left * height
    counts = np.diff(changes, prepend=0, append=height * width)
    return coco.frPyObjects(dict(size=[height, width], counts=counts.tolist()), height, width)


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
