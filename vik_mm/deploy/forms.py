"""The two forms of an exported model: images in and answers out, or only its network.

Both are a chain of stages; the raw form has one. A stage is a module that can be traced by itself, at sizes of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .boxes import OneStageAnswer
from .parts import ExportedPart, ImageSizes, has_two_stages, in_dtype, task_of
from .preparing import Preparation
from .two_stage import TwoStageAnswer

# What an image is traced at: not what anything else of it has.
_TRACED_IMAGE = (2, 213, 317, 3)


@dataclass
class Stage:
    """A module, what it is traced at, and what its inputs and outputs are called.

    An answer's last input is a list of tensors, whose names are the last. ``axes`` are, of each input, those of any
    length; ``limits`` bounds some of them.
    """

    module: nn.Module
    inputs: Sequence[str]
    outputs: Sequence[str]
    example: Sequence[Any]
    axes: Sequence[Any]
    limits: Mapping[int, int] = field(default_factory=dict)


class ClassificationAnswer(nn.Module):
    """Probabilities ``[B, classes]`` of logits."""

    inputs = ()
    names = ('probabilities',)
    thresholds: dict[str, float] = {}

    def __init__(self, model: Any):
        super().__init__()
        self.has_several = type(model.head).__name__.startswith('MultiLabel')

    def forward(self, outs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Weigh the classes against each other, or each by itself where an image has several."""
        (logits,) = outs
        return (logits.sigmoid() if self.has_several else logits.softmax(1),)


class SegmentationAnswer(nn.Module):
    """The label of each pixel of the image, ``[B, H, W]``; uint8 where that is enough for the classes.

    Raises:
        BadInputError: If the model looks through windows, whose number depends on the image.
    """

    inputs = ('image', 'content')
    names = ('label_map',)

    def __init__(self, model: Any):
        super().__init__()
        mode = model.test_cfg.get('mode', 'whole')
        if mode != 'whole':
            raise BadInputError(
                f'the model segments in windows (model.test_cfg.mode={mode!r}), whose number depends on the image; '
                'set --cfg-options model.test_cfg.mode=whole, which answers differently, or take --raw-input, which '
                'gives the logits of one window'
            )
        self.align_corners = model.align_corners
        self.threshold = model.decode_head.threshold
        self.has_two = model.decode_head.out_channels == 1
        self.thresholds = dict(score=float(self.threshold)) if self.has_two else {}

    def forward(self, image: Tensor, content: Tensor, outs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Cut the padding off, resize to the image, and choose."""
        logits = outs[0][:, :, : content.shape[2], : content.shape[3]]
        size = image.shape[1:3]
        logits = F.interpolate(logits, size, mode='bilinear', align_corners=self.align_corners)
        labels = logits[:, 0].sigmoid() > self.threshold if self.has_two else logits.argmax(1)
        return (labels.to(torch.uint8 if logits.shape[1] <= 256 else torch.int64),)


class Whole(nn.Module):
    """All stages in one: 8-bit RGB images ``[B, H, W, 3]`` in, answers about them out."""

    def __init__(self, prepare: Preparation, network: nn.Module, answer: Any):
        super().__init__()
        self.prepare, self.network, self.answer = prepare, network, answer

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Answer about images."""
        content, padded = self.prepare(image)
        given = dict(image=image, content=content)
        return self.answer(*(given[name] for name in self.answer.inputs), list(self.network(padded)))


class RawForm:
    """The network only: normalised images in, what it computes out; see :class:`ExportedPart`."""

    def __init__(self, model: Any, part: str):
        if part == 'model' and has_two_stages(model):
            raise BadInputError(
                f'{type(model).__name__} decides box by box, so its network has no outputs that boxes could be made '
                'of elsewhere; export it whole, without --raw-input, or its backbone: --part backbone'
            )
        self.part = ExportedPart(model, part).eval()
        self.sizes = ImageSizes(model)
        self.module: nn.Module = self.part

    def images(self, generator: torch.Generator) -> list[Tensor]:
        """Batches that files are compared with the model on."""
        return [torch.randn(size, generator=generator) for size in self.sizes.compared]

    def outputs(self) -> list[str]:
        """Names of the outputs, once the part has computed."""
        return _raw_names(self.part)

    def stages(self, dtype: str) -> list[Stage]:
        """What is traced."""
        return [_network_stage(in_dtype(self.part, dtype), 'image', self.outputs(), self.sizes)]

    def in_dtype(self, dtype: str) -> tuple[nn.Module, Tensor]:
        """One module for all, and what it can be traced at."""
        return in_dtype(self.part, dtype), torch.randn(self.sizes.traced)

    def meta(self) -> dict[str, Any]:
        """What a file says about its form."""
        return dict(
            input='normalised',
            layout='float32 RGB [batch, 3, height, width], less mean, over std',
            outputs=self.outputs(),
            min_size=list(self.sizes.smallest),
            max_size=list(self.sizes.largest),
        )


class WholeForm:
    """Images in and answers out.

    Args:
        model (nn.Module): A classifier, segmentor or detector.
        pipeline (Sequence[dict]): Steps of the test pipeline.

    Raises:
        BadInputError: If a part of the model or a step has no counterpart in a graph.
    """

    def __init__(self, model: Any, pipeline: Sequence[Mapping[str, Any]]):
        task = task_of(model)
        self.answer: Any
        if task == 'detection':
            self.answer = (TwoStageAnswer if has_two_stages(model) else OneStageAnswer)(model)
        else:
            self.answer = (ClassificationAnswer if task == 'classification' else SegmentationAnswer)(model)
        self.sizes = ImageSizes(model)
        preprocessor = getattr(model, 'data_preprocessor', None)
        self.prepare = Preparation(pipeline, preprocessor, self.sizes.smallest)
        sizes = self.sizes
        if sizes.smallest == sizes.largest and self.prepare.padded != sizes.smallest:
            raise BadInputError(
                f'the model takes images of {sizes.smallest} pixels only, and the test pipeline makes others; '
                'let it resize to that size, or take --raw-input'
            )
        self.part = ExportedPart(model, 'model')
        self.module = Whole(self.prepare, self.part, self.answer).eval()

    def images(self, generator: torch.Generator) -> list[Tensor]:
        """Batches that files are compared with the model on: coarse noise, which is more like a photo than fine."""
        pictures = []
        for batch, height, width in ((1, 67, 120), (3, 96, 70), (2, 240, 181)):
            coarse = torch.rand(batch, 3, 9, 9, generator=generator)
            fine = F.interpolate(coarse, (height, width), mode='bilinear')
            pictures.append((fine * 255).round().byte().permute(0, 2, 3, 1).contiguous())
        return pictures

    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return list(self.answer.names)

    def stages(self, dtype: str) -> list[Stage]:
        """What is traced: the preparation, the network and the answer, whose sizes do not depend on each other's."""
        sizes, raw = self.sizes, _raw_names(self.part)
        image = torch.zeros(_TRACED_IMAGE, dtype=torch.uint8)
        prepare = Stage(self.prepare, ['image'], ['content', 'padded'], [image], [(0, 1, 2)])
        network = _network_stage(in_dtype(self.part, dtype), 'padded', raw, sizes, self.prepare.padded)
        (padded,) = network.example
        with torch.no_grad():
            outs = self.part(padded)
        # No axis as long as another that it is not always as long as; a tensor of its own, as no view can be traced.
        height, width = self.prepare.fixed or (padded.shape[2] - 5, padded.shape[3] - 6)
        content = torch.zeros(len(padded), 3, height, width)
        axes = (0,) if self.prepare.padded else (0, 2, 3)
        given = dict(image=(image, (0, 1, 2)), content=(content, axes))
        examples, lengths = zip(
            *(given[name] for name in self.answer.inputs),
            (list(outs), [axes if out.ndim == 4 else (0,) for out in outs]),
        )
        answer = Stage(self.answer, [*self.answer.inputs, *raw], self.outputs(), examples, lengths)
        return [prepare, network, answer]

    def in_dtype(self, dtype: str) -> tuple[nn.Module, Tensor]:
        """One module for all, and what it can be traced at."""
        network = in_dtype(self.part, dtype)
        module = Whole(self.prepare, network, self.answer).eval()
        return module, torch.zeros(_TRACED_IMAGE, dtype=torch.uint8)

    def meta(self) -> dict[str, Any]:
        """What a file says about its form."""
        return dict(
            input='image',
            layout='uint8 RGB [batch, height, width, 3]',
            outputs=self.outputs(),
            min_size=[1, 1],
            max_size=None,
            network_size=None if self.prepare.padded is None else list(self.prepare.padded),
            thresholds=self.answer.thresholds,
        )


def _raw_names(part: ExportedPart) -> list[str]:
    if part.part == 'backbone':
        return [f'map_{k}' for k in range(part.lengths[0])]
    if part.task != 'detection':
        return ['logits']
    return [f'output_{k}_level_{i}' for k, length in enumerate(part.lengths) for i in range(length)]


def _network_stage(
    module: nn.Module, name: str, outputs: list[str], sizes: ImageSizes, fixed: tuple[int, int] | None = None
) -> Stage:
    traced = sizes.traced if fixed is None else (2, 3, *fixed)
    is_fixed = fixed is not None or sizes.smallest == sizes.largest
    axes = (0,) if is_fixed else (0, 2, 3)
    limits = {} if is_fixed else dict(zip((2, 3), sizes.largest))
    example = torch.randn(traced, generator=torch.Generator().manual_seed(1))
    return Stage(module, [name], outputs, [example], [axes], limits)
