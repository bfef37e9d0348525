"""How each format is written and read. A file holds a model and, as JSON, what it says about itself."""

import inspect
import json
import os
from typing import Any

import torch

from vik_mm.errors import BadInputError

from .forms import Stage
from .onnx_files import read_onnx, write_onnx
from .programs import META, program_of, step

ENDINGS = {'onnx': '.onnx', 'torch-export': '.export.pt2', 'torchscript': '.ts', 'aoti': '.aoti.pt2'}


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


def _program(form: Any, meta: dict[str, Any]) -> torch.export.ExportedProgram:
    """One program of all stages."""
    stages = form.stages(meta['dtype'])
    if len(stages) > 1:
        if meta['network_size'] is None:
            raise BadInputError(
                f"format={meta['format']!r} cannot hold a resize whose result has a size that depends on the image's; "
                "take format='onnx' or 'torchscript', --raw-input, or a test pipeline that resizes to one size "
                '(keep_ratio=False)'
            )
        module, image = form.in_dtype(meta['dtype'])
        stages = [Stage(module, ['image'], form.outputs(), [image], [(0, 1, 2)])]
    return program_of(stages[0])


def _write_torch_export(form, path, meta):
    program = _program(form, meta)
    with step('writing the program'):
        torch.export.save(program, str(path), extra_files={META: json.dumps(meta)})


def _read_torch_export(path):
    extra = {META: ''}
    unlift = torch.export.load(str(path), extra_files=extra).module
    # Older PyTorch has no guards to switch off.
    options = dict(check_guards=False) if 'check_guards' in inspect.signature(unlift).parameters else {}
    return _without_gradient(unlift(**options)), extra[META]


def _write_torchscript(form, path, meta):
    module, image = form.in_dtype(meta['dtype'])
    with step('tracing the model'):
        script = torch.jit.trace(module, image, check_trace=False)
        torch.jit.save(script, str(path), _extra_files={META: json.dumps(meta)})


def _read_torchscript(path):
    extra = {META: ''}
    script = torch.jit.load(str(path), map_location='cpu', _extra_files=extra)
    return _without_gradient(script), extra[META]


def _write_aoti(form, path, meta):
    from torch._inductor import aoti_compile_and_package

    options = {'aot_inductor.metadata': {META: json.dumps(meta)}}
    program = _program(form, meta)
    with step('compiling the program, which takes minutes'):
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


def _read_aoti(path):
    from torch._inductor import aoti_load_package

    library = aoti_load_package(str(path))
    return _without_gradient(library), library.get_metadata()[META]


def _without_gradient(program):
    def run(image):
        with torch.no_grad():
            return list(program(image))

    return run


WRITERS = {
    'onnx': write_onnx,
    'torch-export': _write_torch_export,
    'torchscript': _write_torchscript,
    'aoti': _write_aoti,
}
READERS = {
    'onnx': read_onnx,
    'torch-export': _read_torch_export,
    'torchscript': _read_torchscript,
    'aoti': _read_aoti,
}
