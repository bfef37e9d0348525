"""How each format is written and read. A file holds a model and, as JSON, what it says about itself."""

import inspect
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from vik_mm.errors import BadInputError

ENDINGS = {'onnx': '.onnx', 'torch-export': '.export.pt2', 'torchscript': '.ts', 'aoti': '.aoti.pt2'}
_META = 'vik_mm.json'


def exported_format(path: str | os.PathLike) -> str | None:
    """Tell the format of a file by its ending; None where it is no exported one."""
    return next((name for name, ending in ENDINGS.items() if str(path).endswith(ending)), None)


def check_torch(format: str) -> None:
    """Make sure that PyTorch knows the format; its exported programs take any size from 2.6 on."""
    if format != 'torchscript' and not hasattr(torch.export.Dim, 'DYNAMIC'):
        raise BadInputError(
            f'format={format!r} needs PyTorch 2.6, this is {torch.__version__}; '
            "pip install --upgrade torch torchvision, or take format='torchscript'"
        )


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say in the log what begins now, and how long it took."""
    print_log(f'export: {what} ...', logger='current')
    start = time.monotonic()
    yield
    print_log(f'export: ... took {time.monotonic() - start:.1f} s', logger='current')


def _program(module: nn.Module, image: Tensor, meta: dict) -> torch.export.ExportedProgram:
    dim = torch.export.Dim
    axes = {0: dim.DYNAMIC}
    if meta['min_size'] != meta['max_size']:
        axes |= {axis: dim.DYNAMIC(max=high) for axis, high in zip((2, 3), meta['max_size'])}
    with step('tracing the model for any size'):
        return torch.export.export(module, (image,), dynamic_shapes=dict(image=axes), strict=False)


def _names(meta: dict) -> list[str]:
    if meta['part'] == 'backbone':
        return [f'map_{k}' for k in range(meta['lengths'][0])]
    if meta['task'] != 'detection':
        return ['logits']
    return [f'output_{k}_level_{i}' for k, length in enumerate(meta['lengths']) for i in range(length)]


def _write_onnx(module, image, path, meta):
    program: Any = _program(module, image, meta)
    with step('translating to ONNX'):
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
                raise BadInputError(f'it has weights in {place!r}, which is not beside it')

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


def quantise(path: Path) -> None:
    """Quantise the matrix products of an ONNX file to int8, in place."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # the sizes of the traced images, which the quantiser would insist on
    draft = path.with_suffix('.float32.onnx')
    onnx.save(model, draft)
    try:
        # Only matrix products: convolutions of more than a pixel stay in float32.
        quantize_dynamic(draft, path, op_types_to_quantize=['MatMul', 'Gemm'], weight_type=QuantType.QInt8)
    finally:
        draft.unlink()


def _write_torch_export(module, image, path, meta):
    program = _program(module, image, meta)
    with step('writing the program'):
        torch.export.save(program, str(path), extra_files={_META: json.dumps(meta)})


def _read_torch_export(path):
    extra = {_META: ''}
    unlift = torch.export.load(str(path), extra_files=extra).module
    # Older PyTorch has no guards to switch off.
    options = dict(check_guards=False) if 'check_guards' in inspect.signature(unlift).parameters else {}
    return _without_gradient(unlift(**options)), extra[_META]


def _write_torchscript(module, image, path, meta):
    with step('tracing the model'):
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
    with step('compiling the program, which takes minutes'):
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


WRITERS = {
    'onnx': _write_onnx,
    'torch-export': _write_torch_export,
    'torchscript': _write_torchscript,
    'aoti': _write_aoti,
}
READERS = {
    'onnx': _read_onnx,
    'torch-export': _read_torch_export,
    'torchscript': _read_torchscript,
    'aoti': _read_aoti,
}
