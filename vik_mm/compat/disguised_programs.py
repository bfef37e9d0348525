"""Files that ``torch.load`` takes for checkpoints and does not read as data, ``weights_only=True`` or not.

Before PyTorch 2.6 it loads a TorchScript archive as the program that it is, and hands an archive of the oldest format,
tar, to a reader that was not made for ``weights_only`` (CVE-2025-32434). Later versions refuse both.
"""

import functools
import os
import pickle
import tarfile
from typing import Any, BinaryIO

import torch
from torch.torch_version import TorchVersion

_ZIP = b'PK\x03\x04'


def refuse_programs(file: str | os.PathLike | BinaryIO) -> None:
    """Make sure that a file is none that older versions of ``torch.load`` run.

    Args:
        file (str | PathLike | BinaryIO): What ``torch.load`` is given; it is read from where it stands, and stands
            there afterwards.

    Raises:
        pickle.UnpicklingError: If it is a TorchScript archive, or a tar archive.
    """
    if isinstance(file, (str, os.PathLike)):
        with open(file, 'rb') as opened:
            return refuse_programs(opened)
    start = file.tell()
    try:
        # Torch tells the two apart by the first bytes.
        if file.read(len(_ZIP)) == _ZIP:
            file.seek(start)
            if 'constants.pkl' in torch._C.PyTorchFileReader(file).get_all_records():
                raise pickle.UnpicklingError('a TorchScript archive is a program')
        else:
            file.seek(start)
            if tarfile.is_tarfile(file):
                raise pickle.UnpicklingError('a tar archive, as PyTorch wrote before 0.1.10, can run code')
    finally:
        file.seek(start)


def have_torch_load_refuse_programs() -> None:
    """Have ``torch.load`` of this process refuse what :func:`refuse_programs` refuses, where it does not by itself."""
    if TorchVersion(torch.__version__) < '2.6' and not getattr(torch.load, 'refuses_programs', False):
        torch.load = _refusing(torch.load)


def _refusing(load):
    @functools.wraps(load)
    def refuse_and_load(f, *arguments: Any, **options: Any) -> Any:
        refuse_programs(f)
        return load(f, *arguments, **options)

    marked: Any = refuse_and_load
    marked.refuses_programs = True
    return marked
