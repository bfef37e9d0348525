"""What a user may give to be predicted on: files, folders, arrays, PIL's images, and lists and streams of them."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vik_mm.errors import BadInputError

from .input_images import find_images
from .pipeline import ChannelOrder, TestPipeline


@dataclass(frozen=True)
class Picture:
    """A picture to predict on.

    Args:
        source (str | np.ndarray | Image): An image file, or the picture.
        name (str): For errors.
        channel_order (str): Of an array.
    """

    source: Any
    name: str
    channel_order: ChannelOrder

    @property
    def path(self) -> str | None:
        """The file; None for a picture in memory."""
        return self.source if isinstance(self.source, str) else None

    def load(self, pipeline: TestPipeline) -> dict[str, Any]:
        """Load it as a pipeline does; raises BadInputError where it cannot."""
        return pipeline.read(self.source) if self.path else pipeline.take(self.source, self.channel_order)


def is_stream(images: Any) -> bool:
    """Tell whether images come one after the other, and nobody knows how many."""
    return isinstance(images, Iterator)


def pictures_of(images: Any, channel_order: ChannelOrder) -> Iterator[Picture]:
    """Go through all pictures of what a user has given.

    Args:
        images (Any): The path of an image file or a folder, an array, an image of PIL, or an iterable of those. A
            folder is searched with all that is below it.
        channel_order (str): Of arrays: 'RGB' or 'BGR'.

    Returns:
        Iterator[Picture]: The pictures. Of a list all paths are looked for before this returns, and of a stream as
        they come.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds no image.
        BadInputError: If something is none of these.
    """
    if channel_order not in ('RGB', 'BGR'):
        raise BadInputError(f"channel_order={channel_order!r} must be 'RGB' or 'BGR'")
    if is_stream(images):
        return _all_of(images, channel_order)
    if isinstance(images, (str, os.PathLike, np.ndarray, Image.Image)) or not isinstance(images, Iterable):
        images = [images]
    elif isinstance(images, dict) or type(images).__module__.split('.')[0] == 'torch':
        raise _refusal(images, '')
    return iter(list(_all_of(images, channel_order)))


def _all_of(images: Iterable[Any], channel_order: ChannelOrder) -> Iterator[Picture]:
    for number, image in enumerate(images):
        if isinstance(image, (str, os.PathLike)):
            for found in find_images([image]).images:
                yield Picture(found.path, found.path, channel_order)
        elif isinstance(image, (np.ndarray, Image.Image)):
            yield Picture(image, f'image {number}', channel_order)
        else:
            raise _refusal(image, f'image {number}: ')


def _refusal(image: Any, place: str) -> BadInputError:
    hint = '; write tensor.permute(1, 2, 0).cpu().numpy()' if type(image).__module__.split('.')[0] == 'torch' else ''
    return BadInputError(
        f'{place}{type(image).__name__} is no image; give the path of a file or folder, a uint8 array [height, width, '
        f'channels], an image of PIL, or a list or generator of those{hint}'
    )
