"""Models as files that run without this project: ONNX, PyTorch's exported programs, TorchScript, compiled libraries."""

import copy
import inspect
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmpretrain.models.backbones import SwinTransformer
from torch import Tensor, nn

from vik_mm.backbones import ConViTKArAt, ViTKArAt
from vik_mm.backbones.vik import MIN_IMAGE_SIZE
from vik_mm.compat.registered_only import builds_registered_only
from vik_mm.compat.tracing import trace_sizes
from vik_mm.errors import BadInputError
from vik_mm.ops import reference_operators
from vik_mm.version import __version__

ENDINGS = {'onnx': '.onnx', 'torch-export': '.export.pt2', 'torchscript': '.ts', 'aoti': '.aoti.pt2'}
DTYPES = ('float32', 'float16', 'bfloat16', 'int8')
PARTS = ('model', 'backbone')
# The longest side in pixels that exported files take; the shortest is the model's.
MAX_SIZE = 4096
_META = 'vik_mm.json'


class ExportedPart(nn.Module):
    """The part of a model that goes into a file.

    Args:
        model (nn.Module): A classifier of MMPretrain, a detector of MMDetection or a segmentor of MMSegmentation.
        part (str): 'model' or 'backbone'. The model of a classifier gives ``logits`` ``[B, classes]``, of a segmentor
            ``logits`` ``[B, classes, H, W]``, and of a one-stage detector what its head predicts on each level, which
            boxes are made of; two-stage detectors decide box by box, of them the backbone alone can be exported.

    Shape:
        - Input: ``[B, 3, H, W]``, normalised with the model's mean and standard deviation.
        - Output: a tuple of tensors.

    Raises:
        ValueError: If there is no such part, or it cannot be exported.
    """

    def __init__(self, model: nn.Module, part: str = 'model'):
        super().__init__()
        if part not in PARTS:
            raise ValueError(f'part={part!r} is unknown; choose one of {PARTS}')
        trace_sizes(model)
        self.model, self.part = model, part
        if part == 'model':
            self.task = task_of(model)
            if self.task == 'detection' and not hasattr(model, 'bbox_head'):
                raise ValueError(
                    f'{type(model).__name__} has two stages and goes on box by box, which no graph holds; '
                    'export --part backbone'
                )
        elif not hasattr(model, 'backbone'):
            raise ValueError(f'{type(model).__name__} has no backbone')
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
        else:
            outs = self.model.bbox_head(self.model.extract_feat(image))
        self.lengths = [len(levels) for levels in outs]
        return tuple(level for levels in outs for level in levels)


def task_of(model: nn.Module) -> str:
    """Tell what a model does.

    Returns:
        str: 'classification', 'segmentation' or 'detection'.

    Raises:
        ValueError: If it is of none of the three packages.
    """
    for task, part in (('segmentation', 'decode_head'), ('classification', 'head')):
        if hasattr(model, part):
            return task
    if hasattr(model, 'bbox_head') or hasattr(model, 'roi_head'):
        return 'detection'
    raise ValueError(f'{type(model).__name__} is no classifier, detector or segmentor with a head')


class _Sizes:
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


def _in_dtype(part: ExportedPart, dtype: str) -> nn.Module:
    """Give a part that computes in a dtype; it shares weights with the one given in float32 alone."""
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
        ValueError: If an argument is unknown, or these do not go together.
        BadInputError: If the file, in float32, does not give the model's answers.
    """
    path = Path(path)
    _check(path, format, dtype)
    model.eval()
    whole = ExportedPart(model, part).eval()
    sizes = _Sizes(model)
    preprocessor = getattr(model, 'data_preprocessor', None)
    statistics = {key: getattr(preprocessor, key, None) for key in ('mean', 'std')}
    meta = dict(
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
        with _step(f"computing the model's answers at {_listed(sizes.compared)}"):
            expected = [whole(image) for image in images]
        meta['lengths'] = whole.lengths
        path.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[format](_in_dtype(whole, dtype), torch.randn(sizes.traced, generator=generator), path, meta)
    if dtype == 'int8':
        with _step('quantising'):
            _quantise(path)
    with _step(f"comparing the file's answers with the model's at {_listed(sizes.compared)}"):
        run, _ = load_exported(path)
        differences = [(a - b).abs().max() for image, outs in zip(images, expected) for a, b in zip(run(image), outs)]
    meta['max_difference'] = float(max(differences))
    scale = max(float(out.abs().max()) for outs in expected for out in outs)
    if dtype == 'float32' and not meta['max_difference'] <= 1e-4 * max(1.0, scale):
        raise BadInputError(
            f'{path} answers differently from the model, by {meta["max_difference"]:.2g}: do not use it'
        )
    return meta


def load_exported(path: str | os.PathLike) -> tuple[Callable[[Tensor], list[Tensor]], dict[str, Any]]:
    """Load an exported file. ONNX is data; every other format is a program: load only those whose origin you trust.

    After :func:`vik_mm.engine.read_safe_config`, programs are refused.

    Args:
        path (str | PathLike): A file of :func:`export`.

    Returns:
        tuple[Callable[[Tensor], list[Tensor]], dict[str, Any]]: A function of a batch ``[B, 3, H, W]``, and what the
        file holds about itself.

    Raises:
        FileNotFoundError: If there is no such file.
        BadInputError: If it is damaged, no file of :func:`export`, or a program where only data may be loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'exported file {path} does not exist')
    format = exported_format(path)
    if format is None:
        raise BadInputError(f'{path} must end in one of {sorted(ENDINGS.values())}')
    if format != 'onnx':
        if builds_registered_only():
            raise BadInputError(
                f'{path} is a program ({format}), which --safe-config does not load; take a checkpoint or an ONNX '
                'file, or leave --safe-config out if you trust whoever made it'
            )
        _check_torch(format)
    try:
        run, text = _READERS[format](path)
        meta = json.loads(text)
    except ImportError as error:
        raise BadInputError(f'{path} needs a package: {error}; pip install vik_mm[export]') from error
    except Exception as error:  # each runtime has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(f'{path} cannot be loaded as {format}; export it again ({reason})') from error

    def checked(image: Tensor) -> list[Tensor]:
        size, smallest, largest = tuple(image.shape[2:]), tuple(meta['min_size']), tuple(meta['max_size'])
        if any(not low <= side <= high for low, side, high in zip(smallest, size, largest)):
            sides = f'of {smallest}' if smallest == largest else f'from {smallest} to {largest}'
            raise BadInputError(f'{path} takes images {sides} pixels, got {size}; resize or pad them')
        return run(image)

    return checked, meta


def exported_format(path: str | os.PathLike) -> str | None:
    """Tell the format of a file by its ending; None where it is no exported one."""
    return next((name for name, ending in ENDINGS.items() if str(path).endswith(ending)), None)


def run_exported(model: nn.Module, path: str | os.PathLike) -> dict[str, Any]:
    """Have a model compute with an exported file; boxes and label maps are made of its outputs as ever.

    Args:
        model (nn.Module): Of the config that was exported; changed in place. Its weights are not used.
        path (str | PathLike): An exported 'model'.

    Returns:
        dict[str, Any]: What the file holds about itself.

    Raises:
        ValueError: If the file holds a backbone alone, or a model of another task or number of classes.
    """
    if exported_format(path) != 'onnx':
        print_log(f'{path} is a program, which runs with all that you may do here', logger='current')
    run, meta = load_exported(path)
    task = task_of(model)
    if meta['part'] != 'model' or meta['task'] != task:
        raise ValueError(f'{path} holds a {meta["part"]} for {meta["task"]}; this needs a model for {task}')
    if task == 'classification':
        model.extract_feat = lambda inputs, *_, **__: run(inputs)[0]
        model.head.forward = lambda logits: logits
    elif task == 'segmentation':
        model.encode_decode = lambda inputs, batch_img_metas: run(inputs)[0]
    else:

        def levels(outs):
            outs = iter(outs)
            return tuple([next(outs) for _ in range(length)] for length in meta['lengths'])

        model.extract_feat = run
        model.bbox_head.forward = levels
    return meta


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Say in the log what begins now, and how long it took."""
    print_log(f'export: {what} ...', logger='current')
    start = time.monotonic()
    yield
    print_log(f'export: ... took {time.monotonic() - start:.1f} s', logger='current')


def _listed(sizes: Sequence[tuple[int, ...]]) -> str:
    return ', '.join('x'.join(map(str, size)) for size in sizes)


def _check(path: Path, format: str, dtype: str) -> None:
    if format not in ENDINGS:
        raise ValueError(f'format={format!r} is unknown; choose one of {sorted(ENDINGS)}')
    if not path.name.endswith(ENDINGS[format]):
        raise ValueError(f'a file of format {format} must end in {ENDINGS[format]}, got {path.name}')
    if dtype not in DTYPES:
        raise ValueError(f'dtype={dtype!r} is unknown; choose one of {DTYPES}')
    _check_torch(format)
    if dtype == 'int8' and format != 'onnx':
        raise ValueError("dtype='int8' is ONNX Runtime's quantisation; it needs format='onnx'")
    if dtype == 'bfloat16' and format == 'onnx':
        raise ValueError("ONNX Runtime has no bfloat16 on CPUs; choose dtype='float16'")


def _check_torch(format: str) -> None:
    """Make sure that PyTorch knows the format; its exported programs take any size from 2.6 on."""
    if format != 'torchscript' and not hasattr(torch.export.Dim, 'DYNAMIC'):
        raise BadInputError(
            f'format={format!r} needs PyTorch 2.6, this is {torch.__version__}; '
            "pip install --upgrade torch torchvision, or take format='torchscript'"
        )


def _program(module: nn.Module, image: Tensor, meta: dict) -> torch.export.ExportedProgram:
    dim = torch.export.Dim
    axes = {0: dim.DYNAMIC}
    if meta['min_size'] != meta['max_size']:
        axes |= {axis: dim.DYNAMIC(max=high) for axis, high in zip((2, 3), meta['max_size'])}
    with _step('tracing the model for any size'):
        return torch.export.export(module, (image,), dynamic_shapes=dict(image=axes), strict=False)


def _names(meta: dict) -> list[str]:
    if meta['part'] == 'backbone':
        return [f'map_{k}' for k in range(meta['lengths'][0])]
    if meta['task'] != 'detection':
        return ['logits']
    return [f'output_{k}_level_{i}' for k, length in enumerate(meta['lengths']) for i in range(length)]


def _write_onnx(module, image, path, meta):
    program = _program(module, image, meta)
    with _step('translating to ONNX'):
        program = torch.onnx.export(
            program,
            dynamo=True,
            input_names=['image'],
            output_names=_names(meta),
            verbose=False,
            # Takes as long as the rest, and saves no time in ONNX Runtime, which optimises what it loads. The
            # quantiser finds the weights of matrix products by it.
            optimize=meta['dtype'] == 'int8',
        )
        _tidy(program.model)
        program.model.metadata_props[_META] = json.dumps(meta)
        program.save(str(path))


def _tidy(model) -> None:
    """Compute what is constant, and drop notes on where in the source each node comes from."""
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)
    for node in model.graph:
        node.metadata_props.clear()


def _read_onnx(path):
    import onnx
    import onnxruntime

    for tensor in _onnx_tensors(onnx.load(path, load_external_data=False)):
        places = [entry.value for entry in tensor.external_data if entry.key == 'location']
        for place in places:
            # ONNX Runtime would read any file of this machine.
            if Path(place).name != place or (path.parent / place).is_symlink():
                raise ValueError(f'it has weights in {place!r}, which is not beside it')

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])

    def run(image):
        return [torch.from_numpy(out) for out in session.run(None, {'image': image.cpu().numpy()})]

    return run, session.get_modelmeta().custom_metadata_map[_META]


def _onnx_tensors(message: Any) -> Iterator[Any]:
    """Go through the tensors of an ONNX model, wherever they stand in it."""
    if message.DESCRIPTOR.name == 'TensorProto':
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            # A single message has fields of its own; several come as a sequence.
            for below in [value] if hasattr(value, 'ListFields') else value:
                yield from _onnx_tensors(below)


def _quantise(path: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # the sizes of the traced images, which the quantiser would insist on
    draft = path.with_suffix('.float32.onnx')
    onnx.save(model, draft)
    try:
        # Matrix products alone: convolutions of more than a pixel stay in float32.
        quantize_dynamic(draft, path, op_types_to_quantize=['MatMul', 'Gemm'], weight_type=QuantType.QInt8)
    finally:
        draft.unlink()


def _write_torch_export(module, image, path, meta):
    program = _program(module, image, meta)
    with _step('writing the program'):
        torch.export.save(program, str(path), extra_files={_META: json.dumps(meta)})


def _read_torch_export(path):
    extra = {_META: ''}
    unlift = torch.export.load(str(path), extra_files=extra).module
    # Older PyTorch has no guards to switch off.
    options = dict(check_guards=False) if 'check_guards' in inspect.signature(unlift).parameters else {}
    return _without_gradient(unlift(**options)), extra[_META]


def _write_torchscript(module, image, path, meta):
    with _step('tracing the model'):
        script = torch.jit.trace(module, image, check_trace=False)
        torch.jit.save(script, str(path), _extra_files={_META: json.dumps(meta)})


def _read_torchscript(path):
    extra = {_META: ''}
    script = torch.jit.load(str(path), map_location='cpu', _extra_files=extra)
    return _without_gradient(script), extra[_META]


def _write_aoti(module, image, path, meta):
    from torch._inductor import aoti_compile_and_package

    options = {'aot_inductor.metadata': {_META: json.dumps(meta)}}
    program = _program(module, image, meta)
    with _step('compiling the program, which takes minutes'):
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


def _read_aoti(path):
    from torch._inductor import aoti_load_package

    library = aoti_load_package(str(path))
    return _without_gradient(library), library.get_metadata()[_META]


def _without_gradient(program):
    def run(image):
        with torch.no_grad():
            return list(program(image))

    return run


_WRITERS = {
    'onnx': _write_onnx,
    'torch-export': _write_torch_export,
    'torchscript': _write_torchscript,
    'aoti': _write_aoti,
}
_READERS = {
    'onnx': _read_onnx,
    'torch-export': _read_torch_export,
    'torchscript': _read_torchscript,
    'aoti': _read_aoti,
}
