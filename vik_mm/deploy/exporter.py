"""Writes models as files that run without this project, and compares the files with the models."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vik_mm.errors import BadInputError
from vik_mm.ops import reference_operators
from vik_mm.version import __version__

from .formats import ENDINGS, WRITERS, check_torch, quantise, step
from .parts import ExportedPart, ImageSizes, in_dtype, task_of
from .running import load_exported

DTYPES = ('float32', 'float16', 'bfloat16', 'int8')


def export(
    model: nn.Module,
    path: str | os.PathLike,
    format: str,
    part: str = 'model',
    dtype: str = 'float32',
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write a model for batches of any size, and images of any size that the model takes.

    Those of Swin, whose blocks shift their windows or not as the size has it, and of ConViT, made for one size, take
    images of that size.

    Args:
        model (nn.Module): Built and with its weights; in float32, on the CPU. It is in evaluation mode afterwards.
        path (str | PathLike): The file, ending as :data:`ENDINGS` says.
        format (str): 'onnx', 'torch-export', 'torchscript' or 'aoti' (a library compiled for this kind of machine).
        part (str): 'model' or 'backbone'; see :class:`ExportedPart`. Defaults to 'model'.
        dtype (str): 'float32', 'float16', 'bfloat16', or 'int8': ONNX Runtime's dynamic quantisation of
            matrix products, 1x1 convolutions among them. Defaults to 'float32'.
        classes (Sequence[str], optional): Names of the classes. Defaults to None.

    Returns:
        dict[str, Any]: What the file holds about itself, and ``max_difference``: the largest difference to the model
        over batches of three sizes, none of them the traced one.

    Raises:
        BadInputError: If an argument is unknown, or these do not go together.
        BadInputError: If the file, in float32, does not give the model's answers.
    """
    path = Path(path)
    _check(path, format, dtype)
    model.eval()
    whole = ExportedPart(model, part).eval()
    sizes = ImageSizes(model)
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
        min_size=list(sizes.smallest),
        max_size=list(sizes.largest),
        **{key: None if value is None else value.flatten().tolist() for key, value in statistics.items()},
    )
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(size, generator=generator) for size in sizes.compared]
    with torch.no_grad(), reference_operators():
        with step(f"computing the model's answers at {_listed(sizes.compared)}"):
            expected = [whole(image) for image in images]
        meta['lengths'] = whole.lengths
        path.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[format](in_dtype(whole, dtype), torch.randn(sizes.traced, generator=generator), path, meta)
    if dtype == 'int8':
        with step('quantising'):
            quantise(path)
    with step(f"comparing the file's answers with the model's at {_listed(sizes.compared)}"):
        run, _ = load_exported(path)
        differences = [(a - b).abs().max() for image, outs in zip(images, expected) for a, b in zip(run(image), outs)]
    meta['max_difference'] = float(max(differences))
    scale = max(float(out.abs().max()) for outs in expected for out in outs)
    if dtype == 'float32' and not meta['max_difference'] <= 1e-4 * max(1.0, scale):
        raise BadInputError(
            f'{path} answers differently from the model, by {meta["max_difference"]:.2g}: do not use it'
        )
    return meta


def _listed(sizes: Sequence[tuple[int, ...]]) -> str:
    return ', '.join('x'.join(map(str, size)) for size in sizes)


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
