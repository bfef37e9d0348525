"""Writes models as files that run without this project, and compares the files with the models."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vik_mm.errors import BadInputError
from vik_mm.ops import reference_operators
from vik_mm.version import __version__

from .comparing import SHARE, difference
from .formats import ENDINGS, WRITERS, check_torch
from .forms import RawForm, WholeForm
from .onnx_files import quantise
from .parts import PARTS, task_of
from .programs import step
from .running import load_exported

DTYPES = ('float32', 'float16', 'bfloat16', 'int8')


def export(
    model: nn.Module,
    path: str | os.PathLike,
    format: str,
    part: str = 'model',
    dtype: str = 'float32',
    classes: Sequence[str] | None = None,
    pipeline: Sequence[Mapping[str, Any]] | None = None,
    raw_input: bool = False,
) -> dict[str, Any]:
    """Write a model for batches of any size, and images of any size that the model takes.

    By default a file takes 8-bit RGB images ``[B, H, W, 3]`` and answers about their own pixels: probabilities, a label
    map, or boxes after suppression, with masks where the model has them. See docs/export.md.

    The networks of Swin, whose blocks shift their windows or not as the size has it, and of ConViT, made for one size,
    take images of that size.

    Args:
        model (nn.Module): Built and with its weights; in float32, on the CPU. It is in evaluation mode afterwards.
        path (str | PathLike): The file, ending as :data:`ENDINGS` says.
        format (str): 'onnx', 'torch-export', 'torchscript' or 'aoti' (a library compiled for this kind of machine).
        part (str): 'model' or 'backbone'; a backbone has raw input. Defaults to 'model'.
        dtype (str): 'float32', 'float16', 'bfloat16', or 'int8': ONNX Runtime's dynamic quantisation of
            matrix products, 1x1 convolutions among them. Applies to the network; images and boxes stay in float32.
            Defaults to 'float32'.
        classes (Sequence[str], optional): Names of the classes. Defaults to None.
        pipeline (Sequence[dict], optional): The config's test pipeline, whose resize goes into the file; an empty one
            takes images as they are. Needed unless the input is raw. Defaults to None.
        raw_input (bool): Take normalised images ``[B, 3, H, W]`` and give what the network computes; see
            :class:`ExportedPart`. Defaults to False.

    Returns:
        dict[str, Any]: What the file holds about itself, and ``max_difference``: the largest difference to the model
        over batches of three sizes, none of them the traced one, objects paired by their boxes.

    Raises:
        BadInputError: If an argument is unknown, or these do not go together, or the model or its pipeline has a part
            that no graph can hold.
        BadInputError: If the file, in float32, does not give the model's answers.
    """
    path = Path(path)
    _check(path, format, dtype)
    model.eval()
    form: Any
    if raw_input or part == 'backbone':
        form = RawForm(model, part)
    elif part not in PARTS:
        raise BadInputError(f'part={part!r} is unknown; choose one of {PARTS}')
    elif pipeline is None:
        raise BadInputError(
            'a file that takes images needs the test pipeline: pipeline=cfg.test_dataloader.dataset.pipeline; '
            'pipeline=[] does not resize them. raw_input=True writes a file of prepared images and of what the network '
            'gives, the only form before vik_mm had this option'
        )
    else:
        form = WholeForm(model, pipeline)
    preprocessor = getattr(model, 'data_preprocessor', None)
    statistics = {key: getattr(preprocessor, key, None) for key in ('mean', 'std')}
    meta: dict[str, Any] = dict(
        vik_mm_version=__version__,
        format=format,
        part=part,
        dtype=dtype,
        task=task_of(model),
        classes=None if classes is None else list(classes),
        order='RGB',
        **{key: None if value is None else value.flatten().tolist() for key, value in statistics.items()},
    )
    images = form.images(torch.Generator().manual_seed(0))
    with torch.no_grad(), reference_operators():
        with step(f"computing the model's answers at {_listed(images)}"):
            expected = [form.module(image) for image in images]
        meta |= dict(form.meta(), lengths=form.part.lengths)
        path.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[format](form, path, meta)
    if dtype == 'int8':
        with step('quantising'):
            quantise(path)
    with step(f"comparing the file's answers with the model's at {_listed(images)}"):
        run, _ = load_exported(path)
        found = [difference(form.outputs(), run(image), outs) for image, outs in zip(images, expected)]
    meta['max_difference'], share = (max(each) for each in zip(*found))
    if dtype == 'float32' and not (meta['max_difference'] <= 1e-4 and share <= SHARE):
        raise BadInputError(
            f'{path} answers differently from the model, by {meta["max_difference"]:.2g}, and in {share:.1%} of '
            'objects or pixels altogether: do not use it'
        )
    return meta


def _listed(images: Sequence[torch.Tensor]) -> str:
    return ', '.join('x'.join(map(str, image.shape)) for image in images)


def _check(path: Path, format: str, dtype: str) -> None:
    if format not in ENDINGS:
        raise BadInputError(f'format={format!r} is unknown; choose one of {sorted(ENDINGS)}')
    if not path.name.endswith(ENDINGS[format]):
        raise BadInputError(f'a file of format {format} must end in {ENDINGS[format]}, got {path.name}')
    if dtype not in DTYPES:
        raise BadInputError(f'dtype={dtype!r} is unknown; choose one of {DTYPES}')
    check_torch(format)
    if dtype == 'int8' and format != 'onnx':
        raise BadInputError("dtype='int8' is ONNX Runtime's quantisation; it needs format='onnx'")
    if dtype == 'bfloat16' and format == 'onnx':
        raise BadInputError("ONNX Runtime has no bfloat16 on CPUs; choose dtype='float16'")
