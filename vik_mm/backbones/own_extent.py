"""Images of a padded batch, each computed at its own extent.

Detectors stack images of unlike sizes into one batch and pad them with zeros, right and below. Whatever averages over
the map (a norm over all pixels, a gate's mean, a grid laid over the map) then sees the padding, and an image's features
depend on its neighbours in the batch. Here each image is cut out, computed as if it were alone, and put back.

Shape letters: ``B`` images, ``C`` channels, ``H`` and ``W`` in pixels.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vik_mm.errors import BadInputError
from vik_mm.ops import is_exported

Extents = list[tuple[int, int]]
"""Height and width, in pixels, of each image of a batch."""


@torch.compiler.disable  # what depends on the values of pixels is no part of a graph
def read_extents(x: Tensor, at_least: int = 1) -> Extents | None:
    """Read off a batch how far each image reaches: the padding is zero in all channels.

    The data preprocessors of the three mm packages normalise an image before they pad it, so that its own pixels are
    not exactly zero. Rows or columns of an image that are exactly zero to its right or lower edge count as padding.

    Args:
        x (Tensor): ``[B, C, H, W]``.
        at_least (int): The least height and width, in pixels. Defaults to 1.

    Returns:
        Extents | None: Height and width of each image; an image that is zero everywhere has the whole map. None where
        nothing is padded, which only the last row and column are looked at for.
    """
    height, width = x.shape[2:]
    ends = torch.stack([(x[:, :, -1] != 0).flatten(1).any(1), (x[..., -1] != 0).flatten(1).any(1)])
    if ends.all():
        return None
    is_content = (x != 0).any(1)  # [B, H, W]
    sides = torch.stack([_last(is_content.any(2)), _last(is_content.any(1))], dim=1)  # [B, 2]
    extents = [
        (max(rows, min(at_least, height)), max(columns, min(at_least, width))) if rows else (height, width)
        for rows, columns in sides.tolist()
    ]
    return None if set(extents) == {(height, width)} else extents


def compute_by_extent(
    compute: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, extents: Extents, strides: Sequence[int]
) -> tuple[Tensor, ...]:
    """Compute the maps of each image at its own extent; images of one extent go together.

    Args:
        compute (Callable): Maps ``[b, C, h, w]`` to a tuple of ``[b, C_i, ceil(h / s_i), ceil(w / s_i)]``.
        x (Tensor): ``[B, C, H, W]``, padded right and below.
        extents (Extents): Height and width of each image.
        strides (Sequence[int]): ``s_i``.

    Returns:
        tuple[Tensor, ...]: ``[B, C_i, ceil(H / s_i), ceil(W / s_i)]``, zero outside of an image's extent.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for number, extent in enumerate(extents):
        groups.setdefault(extent, []).append(number)
    parts = [compute(x[numbers, :, :height, :width]) for (height, width), numbers in groups.items()]
    order = [number for numbers in groups.values() for number in numbers]
    place = torch.tensor(order, device=x.device).argsort()
    return tuple(
        torch.cat([_pad_to(map_, [-(-side // stride) for side in x.shape[2:]]) for map_ in maps])[place]
        for maps, stride in zip(zip(*parts), strides)
    )


class OwnExtents(nn.Module):
    """A backbone that computes each image of a batch at its own extent, where ``ignore_padding`` is set.

    Subclasses have ``_compute_maps``, which maps ``[B, C, H, W]`` to a tuple of maps, and ``out_strides``, their
    strides.
    """

    ignore_padding: bool
    out_strides: Sequence[int]
    _compute_maps: Callable[[Tensor], tuple[Tensor, ...]]

    def compute_each_image(self, x: Tensor, at_least: int) -> tuple[Tensor, ...]:
        """Compute the maps of each image as if the batch had no other; a traced model takes the whole batch as it is.

        Args:
            x (Tensor): ``[B, C, H, W]``.
            at_least (int): The least height and width of an image, in pixels.

        Returns:
            tuple[Tensor, ...]: As of :func:`compute_by_extent`.
        """
        extents = None if is_exported() else read_extents(x, at_least)
        if extents is None:
            return self._compute_maps(x)
        return compute_by_extent(self._compute_maps, x, extents, self.out_strides)

    def compile(self, *args, **kwargs) -> None:
        """Compile the backbone in place, as ``nn.Module.compile``; extents are read outside of the graph."""
        if self.ignore_padding:
            self._compute_maps = torch.compile(self._compute_maps, *args, **kwargs)
        else:
            super().compile(*args, **kwargs)

    def __getstate__(self):
        """Leave out what is compiled: in a copy it would compute with the weights of the original."""
        state = super().__getstate__()
        state.pop('_compute_maps', None)
        return state


def refuse_batch_norm(backbone: nn.Module) -> None:
    """Refuse batch norm where images are computed one after the other.

    Raises:
        ValueError: If a module of the backbone is a batch norm.
    """
    if any(isinstance(module, _BatchNorm) for module in backbone.modules()):
        raise BadInputError(
            'ignore_padding=True computes images of unlike sizes one after the other, and batch norm would see the '
            "statistics of single images; set ignore_padding=False, or norm_cfg=dict(type='GN', num_groups=1)"
        )


def _last(is_content: Tensor) -> Tensor:
    """Count the entries up to the last true one, ``[B, L] -> [B]``; 0 where there is none."""
    numbers = torch.arange(1, is_content.shape[1] + 1, device=is_content.device)
    return (is_content * numbers).amax(1)


def _pad_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Zero-pad ``[B, C, h, w]`` right and below to ``[B, C, *size]``."""
    return F.pad(x, (0, size[1] - x.shape[3], 0, size[0] - x.shape[2]))
