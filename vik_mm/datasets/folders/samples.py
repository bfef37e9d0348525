"""What the readers of all formats make of a folder."""

from dataclasses import dataclass, field
from typing import Any

from .images import ImageFacts


@dataclass
class ObjectTruth:
    """One object.

    Args:
        label (int): Its class.
        box (tuple[float, float, float, float]): Left, top, width and height, in the sample's frame.
        outline (list | dict, optional): COCO's polygons, in the sample's frame, or run-length code. Defaults to None.
        is_crowd (bool): Whether it stands for several objects. Defaults to False.
        area (float, optional): Square pixels of the object itself. Defaults to None.
    """

    label: int
    box: tuple[float, float, float, float]
    outline: Any = None
    is_crowd: bool = False
    area: float | None = None


@dataclass
class Sample:
    """An image and what is known about it.

    Args:
        image (str): Path relative to the user's folder.
        split (str | None): 'train', 'val' or 'test'; None where the folder does not say it.
        label (int, optional): Class of the whole image. Defaults to None.
        objects (list[ObjectTruth]): Objects in it. Defaults to [].
        frame (tuple[float, float], optional): Width and height of the picture that the objects' coordinates are meant
            in; (1, 1) for shares; None where it is not known. Defaults to None.
        label_map (str, optional): Path of its mask. Defaults to None.
        map_labels (set[int]): Classes that occur in the mask. Defaults to set().
        facts (ImageFacts, optional): What the image is like. Defaults to None.
    """

    image: str
    split: str | None
    label: int | None = None
    objects: list[ObjectTruth] = field(default_factory=list)
    frame: tuple[float, float] | None = None
    label_map: str | None = None
    map_labels: set[int] = field(default_factory=set)
    facts: ImageFacts | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as a pipeline loads it."""
        if self.facts is None:
            raise RuntimeError(f'{self.image} has not been looked at yet')
        return self.facts.width, self.facts.height


@dataclass
class Contents:
    """What one reader found.

    Args:
        classes (tuple[str, ...]): Names in the order of the labels.
        samples (list[Sample]): Images and what is known about them.
        are_splits_given (bool): Whether the folder says which image is for what.
    """

    classes: tuple[str, ...]
    samples: list[Sample]
    are_splits_given: bool
