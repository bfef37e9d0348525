"""OpenCV's and Pillow's resizing of 8-bit images, to the last bit, in operators that every runtime has.

``B`` images; sizes may be symbols of a trace.
"""

from typing import Any

import torch
from torch import Tensor

_BITS_CV2 = 11
_BITS_PILLOW = 22


def larger(a: Any, b: Any) -> Any:
    """The larger of two sizes, which may be integers, symbols of an export or tensors of a trace."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.maximum(torch.as_tensor(a), torch.as_tensor(b))
    return torch.sym_max(a, b)


def smaller(a: Any, b: Any) -> Any:
    """The smaller of two sizes; see :func:`larger`."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.minimum(torch.as_tensor(a), torch.as_tensor(b))
    return torch.sym_min(a, b)


def as_tensor(size: Any, dtype: torch.dtype) -> Tensor:
    """A size as a tensor without dimensions."""
    return size.to(dtype) if isinstance(size, Tensor) else torch.full((), size, dtype=dtype)


def resize_bilinear_cv2(image: Tensor, height: Any, width: Any) -> Tensor:
    """Resize as ``cv2.resize`` with ``INTER_LINEAR`` does, which counts in integers.

    Args:
        image (Tensor): ``[B, 3, H, W]``, uint8.
        height (int): New height.
        width (int): New width.

    Returns:
        Tensor: ``[B, 3, height, width]``, int32, from 0 to 255.
    """
    top, bottom, above, below = _taps(image.shape[2], height, is_clipped=False)
    left, right, before, behind = _taps(image.shape[3], width, is_clipped=True)

    def row(index: Tensor) -> Tensor:
        rows = image.index_select(2, index)
        return rows.index_select(3, left).int() * before + rows.index_select(3, right).int() * behind

    def weigh(row: Tensor, weight: Tensor) -> Tensor:
        return _halve(weight[:, None] * _halve(row, 4), 16)

    return _halve(weigh(row(top), above) + weigh(row(bottom), below) + 2, 2)


def _halve(x: Tensor, times: int) -> Tensor:
    # Not torch.div with a rounding mode: ONNX files would divide in float32, which has too few bits.
    return x // (1 << times)


def _taps(old: Any, new: Any, is_clipped: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both pixels that each new one lies between, and their weights, ``[new]``."""
    last = old - 1
    scale = 1 / (as_tensor(new, torch.float64) / as_tensor(old, torch.float64))
    place = ((torch.arange(new, dtype=torch.float64) + 0.5) * scale - 0.5).float()
    first = place.floor()
    share = place - first
    if is_clipped:  # OpenCV does so with columns only
        share = torch.where((first < 0) | (first >= as_tensor(last, torch.float32)), 0.0, share)
    first, end = first.long(), as_tensor(last, torch.int64)
    weights = [(each * (1 << _BITS_CV2)).round().int() for each in (1 - share, share)]
    places = [torch.minimum(each.clamp(min=0), end) for each in (first, first + 1)]
    return places[0], places[1], weights[0], weights[1]


def resize_pillow(image: Tensor, height: Any, width: Any, filter: str) -> Tensor:
    """Resize as Pillow does: columns, then rows, rounded after each; smaller images are smoothed first.

    Args:
        image (Tensor): ``[B, 3, H, W]``, uint8.
        height (int): New height.
        width (int): New width.
        filter (str): 'bilinear' or 'bicubic'.

    Returns:
        Tensor: ``[B, 3, height, width]``, int32, from 0 to 255.
    """
    x = image.double()  # exact for Pillow's integers; float32 would not be
    # No matrix is transposed: ONNX Runtime would join the two steps, and cannot compute that in float64.
    x = _rounded(x @ _weights(image.shape[3], width, filter, axis=0))
    return _rounded(_weights(image.shape[2], height, filter, axis=1) @ x).int()


def _rounded(x: Tensor) -> Tensor:
    return ((x + (1 << (_BITS_PILLOW - 1))) / (1 << _BITS_PILLOW)).floor().clamp(0, 255)


def _weights(old: Any, new: Any, filter: str, axis: int) -> Tensor:
    """Whole numbers ``[old, new]``, or with axis 1 ``[new, old]``; along the axis they add up to about ``2**22``."""
    scale = as_tensor(old, torch.float64) / as_tensor(new, torch.float64)
    centers = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    places = torch.arange(old, dtype=torch.float64).unsqueeze(1 - axis)
    x = ((places - centers.unsqueeze(axis) + 0.5) * (1 / scale.clamp(min=1.0))).abs()
    if filter == 'bilinear':
        weights = (1 - x).clamp(min=0)
    else:
        near = (1.5 * x - 2.5) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * -0.5
        weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    weights = weights / weights.sum(axis, keepdim=True) * (1 << _BITS_PILLOW)
    return weights.sign() * (weights.abs() + 0.5).floor()
