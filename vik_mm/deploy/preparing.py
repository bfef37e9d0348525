"""What a config's test pipeline and a model's data preprocessor do to an image, as one module of a graph.

``B`` images, ``H`` and ``W`` of the image, ``h`` and ``w`` of what the pipeline makes of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .resizing import larger, resize_bilinear_cv2, resize_pillow, smaller

# Steps that change no pixel of a test image.
_PIXELS_STAY = ('LoadImageFromFile', 'LoadAnnotations', 'PackInputs', 'PackDetInputs', 'PackSegInputs')
_RAW = 'take --raw-input (raw_input=True), and prepare images as the config says'


class Preparation(nn.Module):
    """Makes the network's input of 8-bit RGB images of one size.

    Args:
        pipeline (Sequence[dict]): Steps of the test pipeline, as a config has them.
        preprocessor (nn.Module, optional): The model's ``data_preprocessor``. None leaves values from 0 to 255.
        smallest (tuple[int, int]): What the network takes; smaller images are continued by their last pixels.

    Shape:
        - Input: ``[B, H, W, 3]``, uint8, RGB.
        - Output: ``[B, 3, h, w]`` normalised, and the same padded for the network.

    Raises:
        BadInputError: If a step has no counterpart in a graph.
    """

    def __init__(self, pipeline: Sequence[Mapping[str, Any]], preprocessor: Any, smallest: tuple[int, int]):
        super().__init__()
        self.steps: list[Callable[[Tensor], Tensor]] = []
        # Height and width after the steps, where they are the same for every image.
        self.fixed: tuple[int, int] | None = None
        for step in pipeline:
            self._add(dict(step))
        is_loaded = any(_name(step) == 'LoadImageFromFile' for step in pipeline)
        self.is_bgr = is_loaded
        self.smallest = smallest
        self.mean: Tensor | None
        self.std: Tensor | None
        self._read_preprocessor(preprocessor)

    def _add(self, step: dict[str, Any]) -> None:
        name = _name(step)
        if name in _PIXELS_STAY:
            if name == 'LoadImageFromFile' and step.get('color_type', 'color') != 'color':
                raise BadInputError(f'color_type={step["color_type"]!r} is not one of RGB images; {_RAW}')
            return
        if name == 'Resize' and step.get('scale') is not None:
            scale = step['scale']
            width, height = (scale, scale) if isinstance(scale, int) else scale
            keep_ratio = step.get('keep_ratio', False)
            self.steps.append(_Resize(_resizer(step), (height, width), keep_ratio))
            self.fixed = None if keep_ratio else (height, width)
        elif name == 'ResizeEdge' and step.get('edge', 'short') in ('short', 'long'):
            self.steps.append(_ResizeEdge(_resizer(step), step['scale'], step.get('edge', 'short')))
            self.fixed = None
        elif name == 'CenterCrop' and not step.get('auto_pad'):
            size = step['crop_size']
            width, height = (size, size) if isinstance(size, int) else size
            before = self.steps[-1] if self.steps else None
            if self.fixed is None:
                is_enough = isinstance(before, _ResizeEdge) and before.shortest >= max(height, width)
            else:
                is_enough = self.fixed[0] >= height and self.fixed[1] >= width
            if not is_enough:
                raise BadInputError(
                    f'CenterCrop to {(height, width)} needs a step before it that makes every image as large; {_RAW}'
                )
            self.steps.append(_CenterCrop((height, width)))
            self.fixed = (height, width)
        else:
            raise BadInputError(f'the step {step} of the test pipeline has no counterpart in a graph; {_RAW}')

    def _read_preprocessor(self, preprocessor: Any) -> None:
        mean, std = (getattr(preprocessor, key, None) for key in ('mean', 'std'))
        if mean is not None and mean.numel() != 3:
            raise BadInputError(f'the model takes images of {mean.numel()} channels, not RGB; {_RAW}')
        self.register_buffer('mean', None if mean is None else mean.view(1, -1, 1, 1).clone())
        self.register_buffer('std', None if std is None else std.view(1, -1, 1, 1).clone())
        is_converted = getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False)
        self.is_bgr = self.is_bgr and not is_converted
        # MMSegmentation pads test images only where its test_cfg says so.
        padding = getattr(preprocessor, 'test_cfg', None) or {}
        is_segmentor = hasattr(preprocessor, 'size_divisor')
        if is_segmentor:
            if padding.get('size') is not None:
                raise BadInputError(f'test images padded to {padding["size"]} have no counterpart in a graph; {_RAW}')
            self.divisor = padding.get('size_divisor') or 1
            self.pad_value = preprocessor.pad_val
        else:
            self.divisor = getattr(preprocessor, 'pad_size_divisor', 1)
            self.pad_value = getattr(preprocessor, 'pad_value', 0)

    @property
    def padded(self) -> tuple[int, int] | None:
        """Height and width that the network gets, where they are the same for every image."""
        if self.fixed is None:
            return None
        sides = [max(side, low) for side, low in zip(self.fixed, self.smallest)]
        return tuple(side + -side % self.divisor for side in sides)  # type: ignore[return-value]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Prepare images."""
        x = image.permute(0, 3, 1, 2)
        for step in self.steps:
            x = step(x).to(torch.uint8)
        content = (x.flip(1) if self.is_bgr else x).float()
        if self.mean is not None and self.std is not None:
            content = (content - self.mean) / self.std
        padded = content
        for axis, low in zip((2, 3), self.smallest):
            if low > 1 and self.fixed is None:
                side = padded.shape[axis]
                places = torch.arange(larger(side, low))
                padded = padded.index_select(axis, torch.minimum(places, places[side - 1]))
            elif self.fixed is not None and self.fixed[axis - 2] < low:
                places = torch.arange(low).clamp(max=self.fixed[axis - 2] - 1)
                padded = padded.index_select(axis, places)
        if self.divisor > 1:
            height, width = padded.shape[2:]
            padded = F.pad(padded, (0, -width % self.divisor, 0, -height % self.divisor), value=self.pad_value)
        return content, padded


class _Resize:
    def __init__(self, resize: Callable, size: tuple[int, int], keep_ratio: bool):
        self.resize, self.size, self.keep_ratio = resize, size, keep_ratio

    def __call__(self, x: Tensor) -> Tensor:
        if not self.keep_ratio:
            return self.resize(x, *self.size)
        height, width = x.shape[2:]
        long, short = larger(height, width), smaller(height, width)

        def scaled(side: Any) -> Any:
            # Rounded to the nearest, in integers: MMCV rounds its quotient before, so halves may fall elsewhere.
            sides = [
                (2 * side * target + whole) // (2 * whole)
                for target, whole in zip((max(self.size), min(self.size)), (long, short))
            ]
            return smaller(*sides)

        return self.resize(x, scaled(height), scaled(width))


class _ResizeEdge:
    def __init__(self, resize: Callable, side: int, edge: str):
        self.resize, self.side, self.edge = resize, side, edge
        self.shortest = side if edge == 'short' else 0

    def __call__(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        whole = (smaller if self.edge == 'short' else larger)(height, width)
        return self.resize(x, self.side * height // whole, self.side * width // whole)


class _CenterCrop:
    def __init__(self, size: tuple[int, int]):
        self.size = size

    def __call__(self, x: Tensor) -> Tensor:
        for axis, side in zip((2, 3), self.size):
            rest = x.shape[axis] - side
            # Python's rounding of halves, to even.
            start = rest // 2 + (rest % 2) * (rest // 2 % 2)
            x = x.index_select(axis, torch.arange(side) + start)
        return x


def _resizer(step: Mapping[str, Any]) -> Callable[[Tensor, Any, Any], Tensor]:
    backend, interpolation = step.get('backend') or 'cv2', step.get('interpolation', 'bilinear')
    if backend == 'cv2' and interpolation == 'bilinear':
        return resize_bilinear_cv2
    if backend == 'pillow' and interpolation in ('bilinear', 'bicubic'):
        return lambda x, height, width: resize_pillow(x, height, width, interpolation)
    raise BadInputError(
        f'{_name(step)} with backend={backend!r} and interpolation={interpolation!r} has no counterpart in a graph; '
        f"set backend='cv2' with 'bilinear', or backend='pillow' with 'bilinear' or 'bicubic', or {_RAW}"
    )


def _name(step: Mapping[str, Any]) -> str:
    kind = step['type']
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else kind.__name__
