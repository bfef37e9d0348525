"""Models as files that run without this project: ONNX, PyTorch's exported programs, TorchScript, compiled libraries."""

from .exporter import DTYPES, export
from .formats import ENDINGS, exported_format
from .parts import PARTS, ExportedPart, task_of
from .running import load_exported, run_exported

__all__ = [
    'DTYPES',
    'ENDINGS',
    'PARTS',
    'ExportedPart',
    'export',
    'exported_format',
    'load_exported',
    'run_exported',
    'task_of',
]
