"""What of a model goes into a file, and the sizes of images that the file takes."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.models.backbones import SwinTransformer
from torch import Tensor, nn

from vik_mm.backbones import ConViTKArAt, ViTKArAt
from vik_mm.backbones.arguments import MIN_IMAGE_SIZE
from vik_mm.compat.tracing import trace_sizes
from vik_mm.errors import BadInputError

PARTS = ('model', 'backbone')
# The longest side in pixels that exported files take; the shortest is the model's.
MAX_SIZE = 4096


class ExportedPart(nn.Module):
    """The part of a model that goes into a file.

    Args:
        model (nn.Module): A classifier of MMPretrain, a detector of MMDetection or a segmentor of MMSegmentation.
        part (str): 'model' or 'backbone'. The model of a classifier gives ``logits`` ``[B, classes]``, of a segmentor
            ``logits`` ``[B, classes, H, W]``, of a one-stage detector what its head predicts on each level, which
            boxes are made of, and of a two-stage one its features and what its RPN predicts on each level.

    Shape:
        - Input: ``[B, 3, H, W]``, normalised with the model's mean and standard deviation.
        - Output: a tuple of tensors.

    Raises:
        BadInputError: If there is no such part, or it cannot be exported.
    """

    def __init__(self, model: nn.Module, part: str = 'model'):
        super().__init__()
        if part not in PARTS:
            raise BadInputError(f'part={part!r} is unknown; choose one of {PARTS}')
        trace_sizes(model)
        self.model: Any = model
        self.part = part
        if part == 'model':
            self.task = task_of(model)
            if self.task == 'detection' and not hasattr(
                model, 'bbox_head' if not has_two_stages(model) else 'rpn_head'
            ):
                raise BadInputError(f'{type(model).__name__} has no head that is known here; export --part backbone')
        elif not hasattr(model, 'backbone'):
            raise BadInputError(f'{type(model).__name__} has no backbone')
        self.lengths: list[int] = []

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the part's outputs, a flat tuple."""
        if self.part == 'backbone':
            outs = [self.model.backbone(image)]
        elif self.task == 'classification':
            outs = [[self.model(image, mode='tensor')]]
        elif self.task == 'segmentation':
            logits = self.model.decode_head(self.model.extract_feat(image))
            align = self.model.decode_head.align_corners
            outs = [[F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=align)]]
        elif has_two_stages(self.model):
            maps = self.model.extract_feat(image)
            used = self.model.roi_head.bbox_roi_extractor
            used = used[0] if isinstance(used, nn.ModuleList) else used
            outs = [maps[: used.num_inputs], *self.model.rpn_head(maps)]
        else:
            outs = self.model.bbox_head(self.model.extract_feat(image))
        self.lengths = [len(levels) for levels in outs]
        return tuple(level for levels in outs for level in levels)


def task_of(model: nn.Module) -> str:
    """Tell what a model does.

    Returns:
        str: 'classification', 'segmentation' or 'detection'.

    Raises:
        BadInputError: If it is of none of the three packages.
    """
    for task, part in (('segmentation', 'decode_head'), ('classification', 'head')):
        if hasattr(model, part):
            return task
    if hasattr(model, 'bbox_head') or hasattr(model, 'roi_head'):
        return 'detection'
    raise BadInputError(f'{type(model).__name__} is no classifier, detector or segmentor with a head')


def has_two_stages(model: Any) -> bool:
    """Tell whether a detector decides about regions that it proposes itself."""
    return hasattr(model, 'roi_head')


class ImageSizes:
    """Sizes of images that a model's file takes, is traced at, and is compared with the model at.

    Args:
        model (nn.Module): A model with a backbone.
    """

    def __init__(self, model: nn.Module):
        backbone = getattr(model, 'backbone', None)
        if isinstance(backbone, (SwinTransformer, ConViTKArAt)):
            swin = isinstance(backbone, SwinTransformer)
            self.smallest = self.largest = tuple(backbone.patch_embed.init_input_size if swin else backbone.img_size)
            self.traced = (2, 3, *self.smallest)
            self.compared = tuple((batch, 3, *self.smallest) for batch in (1, 3, 4))
            return
        side = backbone.patch_embed.projection.stride[0] if isinstance(backbone, ViTKArAt) else MIN_IMAGE_SIZE
        self.smallest, self.largest = (side, side), (MAX_SIZE, MAX_SIZE)
        # Every stage of ViK has more than one patch here: an axis of length one is taken for one that always is.
        self.traced = (2, 3, 15 * side, 11 * side)
        self.compared = ((1, 3, side, 2 * side), (3, 3, 6 * side + 1, 5 * side + 1), (2, 3, 10 * side, 7 * side))


class _Cast(nn.Module):
    """Takes and gives float32 around a part that computes in another dtype."""

    def __init__(self, part: ExportedPart, dtype: torch.dtype):
        super().__init__()
        self.part, self.dtype = part.to(dtype), dtype

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(out.float() for out in self.part(image.to(self.dtype)))


class _PixelProduct(nn.Module):
    """A 1x1 convolution as a matrix product; ``[B, C, ...]``."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = nn.Parameter(conv.weight.detach().flatten(1)), conv.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


def in_dtype(part: ExportedPart, dtype: str) -> nn.Module:
    """Give a part that computes in a dtype; it shares weights with the given one only in float32."""
    if dtype == 'float32':
        return part
    part = copy.deepcopy(part)
    if dtype != 'int8':
        return _Cast(part, getattr(torch, dtype))
    # What is quantised are matrix products, and most of ViK's weights are 1x1 convolutions.
    for module in list(part.modules()):
        for name, child in list(module.named_children()):
            plain = dict(kernel_size=(1, 1), stride=(1, 1), padding=(0, 0), groups=1)
            if type(child) is nn.Conv2d and all(getattr(child, key) == value for key, value in plain.items()):
                setattr(module, name, _PixelProduct(child))
    return part
