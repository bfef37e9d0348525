"""Finds the image that a file of truth belongs to, by the names of both and of their folders."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from .folder_names import Place, image_stem, truth_stems
from .listing import Listing, fold


class Pairs:
    """Images by where they lie and what they are called.

    Args:
        listing (Listing): The user's folder.
        images (Iterable[str], optional): Those that may be chosen; None for all. Defaults to None.
    """

    def __init__(self, listing: Listing, images: Iterable[str] | None = None):
        self._places: dict[str, Place] = {}
        self._near: dict[tuple, list[str]] = defaultdict(list)
        self._far: dict[str, list[str]] = defaultdict(list)
        for name in listing.images if images is None else images:
            key = self.place(name).key
            path = PurePosixPath(name)
            for stem in {fold(path.name), fold(path.stem), image_stem(name)}:
                self._near[key, stem].append(name)
            self._far[fold(path.stem)].append(name)

    def place(self, name: str) -> Place:
        """Tell the place of a file."""
        folder = name.rpartition('/')[0]
        if folder not in self._places:
            self._places[folder] = Place(folder)
        return self._places[folder]

    def image_of(self, truth: str, is_anywhere: bool = False) -> str | None:
        """Find the image of a file of truth.

        Args:
            truth (str): Its path.
            is_anywhere (bool): Whether the image may lie in any folder, if its name occurs once. Defaults to False.

        Returns:
            str | None: The image; None if there is none, or if several could be meant.
        """
        place = self.place(truth)
        for stem in truth_stems(truth):
            found = [name for name in self._near.get((place.key, stem), ()) if name != truth]
            if len(found) > 1:
                folder = truth.rpartition('/')[0]
                found = [name for name in found if name.rpartition('/')[0] == folder] or found
            if len(found) == 1:
                return found[0]
        if is_anywhere:
            for stem in truth_stems(truth):
                if len(found := self._far.get(stem, [])) == 1:
                    return found[0]
        return None
