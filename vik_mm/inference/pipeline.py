"""The pipeline that a config tests with, for files, arrays and parts of pictures."""

import os
from typing import Any, Literal

import cv2
import numpy as np
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image, ImageOps

from vik_mm.datasets.nesting import nested_configs
from vik_mm.errors import BadInputError

from .input_images import is_regular_file, readable

ChannelOrder = Literal['RGB', 'BGR']
_NO_IMAGE_STEPS = ('LoadAnnotations', 'LoadPanopticAnnotations')
_SIXTEEN_BITS = ('I;16', 'I;16B', 'I;16L', 'I;16N', 'I')


class TestPipeline:
    """The test pipeline of a config, in two parts: what loads a picture, and what prepares it for the model.

    Args:
        dataset (Config): The config of a data set, or of what wraps one.
        min_size (int): The least height and width that the model takes, in pixels. Defaults to 1.

    Raises:
        BadInputError: If the config has no pipeline.
    """

    __test__ = False  # no test, whatever pytest makes of its name

    def __init__(self, dataset: Config, min_size: int = 1):
        steps = [step for step in with_pipeline(dataset).pipeline if step['type'] not in _NO_IMAGE_STEPS]
        first = next((k for k, step in enumerate(steps) if _type_name(step).startswith('Load')), -1)
        loader = steps[first] if first >= 0 else {}
        is_standard = bool(loader) and _type_name(loader) == 'LoadImageFromFile'
        # What another loader leaves is not known: arrays are taken as they are.
        self._color_type = loader.get('color_type', 'color') if is_standard else 'unchanged'
        self._is_float = bool(loader.get('to_float32'))
        self._load, self._prepare = Compose(steps[: first + 1]), Compose(steps[first + 1 :])
        self._min_size = min_size

    def read(self, path: str | os.PathLike) -> dict[str, Any]:
        """Read an image file.

        Args:
            path (str | PathLike): The file.

        Returns:
            dict[str, Any]: What the pipeline loads; the picture is under ``img``.

        Raises:
            BadInputError: If the file is no image.
        """
        reason = 'it is no regular file'
        try:
            if is_regular_file(path):  # opening a pipe would wait forever
                if data := self._load(dict(img_path=str(path), img_id=0)):
                    return data
                reason = 'the pipeline leaves it out'
        except Exception as error:
            raise BadInputError(f'{readable(path)} cannot be read as an image ({_in_one_line(error)})') from error
        raise BadInputError(f'{readable(path)} cannot be read as an image ({reason})')

    def take(self, picture: np.ndarray | Image.Image, channel_order: ChannelOrder = 'RGB') -> dict[str, Any]:
        """Take a picture that is in memory as if it had been read from a file.

        Args:
            picture (np.ndarray | Image): ``[H, W]`` or ``[H, W, C]``, or PIL's, which is turned by its EXIF note where
                the pipeline does so with files.
            channel_order (str): Of an array with three or four channels: 'RGB' or 'BGR'. Defaults to 'RGB'.

        Returns:
            dict[str, Any]: What the pipeline loads of a file.

        Raises:
            BadInputError: If it is no picture, or not of 8 bits where the pipeline has 8 bits.
        """
        if isinstance(picture, Image.Image):
            picture, channel_order = self._array_of(picture), 'RGB'
        img = self._in_file_order(_checked(picture, self._color_type), channel_order)
        if self._is_float:
            img = img.astype(np.float32)
        return dict(img=img, img_path=None, img_id=0, img_shape=img.shape[:2], ori_shape=img.shape[:2])

    def prepare(self, data: dict[str, Any], name: str) -> dict[str, Any]:
        """Resize and pack a picture.

        An image that the pipeline leaves smaller than the model takes is continued by its last pixels to the right and
        below; results are about the image itself.

        Args:
            data (dict): What :meth:`read`, :meth:`take` or :func:`cut` gave.
            name (str): Of the picture, for errors.

        Returns:
            dict[str, Any]: ``inputs`` and ``data_samples``.

        Raises:
            BadInputError: If the picture's sides do not suit the pipeline.
        """
        height, width = data['img'].shape[:2]
        try:
            packed = self._prepare(dict(data))
        except (cv2.error, ValueError) as error:  # what resizing to nothing raises; all else is no fault of the image
            raise BadInputError(
                f'{readable(name)} ({width}x{height} pixels) cannot be prepared as the config says '
                f'({type(error).__name__}: {_in_one_line(error)})'
            ) from error
        self._extend(packed)
        return packed

    def _array_of(self, picture: Image.Image) -> np.ndarray:
        if self._color_type in ('color', 'grayscale'):
            picture = ImageOps.exif_transpose(picture)
        if picture.mode in _SIXTEEN_BITS:
            deep = np.asarray(picture)
            return deep if self._color_type == 'unchanged' else (deep // 256).clip(0, 255).astype(np.uint8)
        keeps = ('L', 'RGB', 'RGBA') if self._color_type == 'unchanged' else ('RGB',)
        return np.asarray(picture if picture.mode in keeps else picture.convert('RGB'))

    def _in_file_order(self, picture: np.ndarray, channel_order: ChannelOrder) -> np.ndarray:
        """Order the channels as OpenCV reads them from a file."""
        channels = 1 if picture.ndim == 2 else picture.shape[2]
        if channel_order == 'RGB' and channels in (3, 4):
            picture = picture[..., [2, 1, 0, *range(3, channels)]]
        if self._color_type == 'unchanged':
            return np.ascontiguousarray(picture)
        if channels == 1:
            picture = picture.reshape(*picture.shape[:2], 1).repeat(3, axis=-1)
        picture = np.ascontiguousarray(picture[..., :3])
        return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) if 'grayscale' in self._color_type else picture

    def _extend(self, data: dict[str, Any]) -> None:
        """Continue an image that is smaller than the backbone takes; changes the pipeline's output."""
        picture = data['inputs']
        height, width = picture.shape[-2:]
        right, below = max(self._min_size - width, 0), max(self._min_size - height, 0)
        if not right and not below:
            return
        extended = F.pad(picture[None].float(), (0, right, 0, below), mode='replicate')[0]
        data['inputs'] = extended.to(picture.dtype)
        # By these MMSegmentation knows what to cut off; MMDetection goes by img_shape, which stays.
        shape = (height + below, width + right)
        data['data_samples'].set_metainfo(dict(pad_shape=shape, padding_size=[0, right, 0, below]))


def cut(data: dict[str, Any], left: int, top: int, width: int, height: int) -> dict[str, Any]:
    """Cut a window out of a loaded picture, as a picture of its own.

    Args:
        data (dict): What the pipeline has loaded.
        left (int): First column.
        top (int): First row.
        width (int): Columns.
        height (int): Rows.

    Returns:
        dict[str, Any]: The same of the window; it shares no memory with the picture.
    """
    img = data['img'][top : top + height, left : left + width].copy()
    return {**data, 'img': img, 'img_shape': (height, width), 'ori_shape': (height, width)}


def with_pipeline(dataset: Any) -> Any:
    """Find the data set that loads images, within those that wrap it.

    Args:
        dataset (Config): Config of a data set.

    Returns:
        Config: The config that has a pipeline.

    Raises:
        BadInputError: If there is none.
    """
    for _, each in nested_configs(dataset):
        if 'pipeline' in each:
            return each
    raise BadInputError('no data set of test_dataloader has a pipeline, which says how images are read')


def _checked(picture: Any, color_type: str) -> np.ndarray:
    if not isinstance(picture, np.ndarray) or picture.ndim not in (2, 3) or 0 in picture.shape:
        what = f'an array of shape {picture.shape}' if isinstance(picture, np.ndarray) else type(picture).__name__
        raise BadInputError(f'an image must be an array [height, width] or [height, width, channels], got {what}')
    if color_type == 'unchanged':
        return picture
    if picture.dtype != np.uint8:
        raise BadInputError(
            f'an image must be uint8 with values from 0 to 255, got {picture.dtype}; for values from 0 to 1 write '
            "(image * 255).round().astype('uint8')"
        )
    if picture.ndim == 3 and picture.shape[2] not in (1, 3, 4):
        raise BadInputError(
            f'an image must have 1, 3 or 4 channels in its last axis, got shape {picture.shape}; '
            'image.transpose(1, 2, 0) brings channels from the first axis to the last'
        )
    return picture


def _type_name(step: dict) -> str:
    kind = step['type']
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else kind.__name__


def _in_one_line(error: Exception) -> str:
    return ' '.join(str(error).split()) or type(error).__name__
