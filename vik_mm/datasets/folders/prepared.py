"""What stands ready to be trained on, whatever form a user's folder had."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class PreparedSplit:
    """One split in the form that the mm packages' own data sets read.

    Args:
        ann_file (Path): For classification a text file, a line ``<image> <label>`` each; for detection and instance
            segmentation a COCO file; for segmentation a text file, a line ``<image>`` each. Images are named relative
            to ``PreparedData.image_root``, with their endings.
        num_images (int): Images in it.
    """

    ann_file: Path
    num_images: int


@dataclass(frozen=True)
class PreparedData:
    """A user's data in one form a task.

    Args:
        name (str): The folder's name, as it names work dirs.
        source (Path): The folder that was looked at; nothing is written into it.
        task (str): 'classification', 'detection', 'instance' (boxes and masks) or 'segmentation'.
        classes (tuple[str, ...]): Names in the order of the labels.
        image_root (Path): The folder that images are named relative to.
        splits (dict[str, PreparedSplit]): 'train' and 'val' always, 'test' where the data has one.
        sizes (ndarray): [N, 2], width and height in pixels of the training images, as a pipeline loads them.
        box_sizes (ndarray): [M, 2], width and height in pixels of the training boxes; [0, 2] for other tasks.
        label_map_root (Path | None): For segmentation the folder of label maps: the map of image ``a/b.jpg`` is
            ``a/b.jpg.png``, 8 bits, label k is class k, 255 counts for nothing. Defaults to None.
        notes (tuple[str, ...]): Lines about what was found and done, for people. Defaults to ().
    """

    name: str
    source: Path
    task: str
    classes: tuple[str, ...]
    image_root: Path
    splits: dict[str, PreparedSplit]
    sizes: np.ndarray
    box_sizes: np.ndarray
    label_map_root: Path | None = None
    notes: tuple[str, ...] = ()
