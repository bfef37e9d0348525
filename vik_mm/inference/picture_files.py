"""Writing pictures whole or not at all."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np

from vik_mm.checkpoints.atomic_files import UNFINISHED
from vik_mm.errors import BadInputError


def write_picture(picture: np.ndarray, path: str | os.PathLike) -> None:
    """Write a picture whole or not at all; unlike with checkpoints, nobody waits until it is on the disk.

    Args:
        picture (np.ndarray): ``[H, W]`` or ``[H, W, 3]``, BGR.
        path (str | PathLike): The file; its ending gives the format.

    Raises:
        BadInputError: If the format is unknown, or does not take such a picture.
    """
    path = Path(path)
    try:
        is_encoded, content = cv2.imencode(path.suffix or path.name, picture)
    except cv2.error as error:
        raise BadInputError(f'{path} must end in the name of a format, such as .png or .jpg') from error
    if not is_encoded:
        raise BadInputError(f'a picture of shape {picture.shape} cannot be written as {path.suffix}')
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, and of one picture only, so that the next run takes away what a killed one has left.
    unfinished = path.with_name(f'.{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}{UNFINISHED}')
    try:
        unfinished.write_bytes(content.tobytes())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
