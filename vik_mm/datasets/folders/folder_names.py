"""What folders are called: which split they hold, and whether images or truth lie in them."""

import re
from pathlib import PurePosixPath

from .listing import fold

SPLITS = ('train', 'val', 'test')
_SPLIT_WORDS = {
    'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
    'testing': 'test',
}  # fmt: skip
_IMAGE_WORDS = {
    'image', 'images', 'img', 'imgs', 'jpegimages', 'pngimages', 'leftimg8bit', 'rgb', 'photo', 'photos', 'picture',
    'pictures', 'input', 'inputs', 'frames',
}  # fmt: skip
_TRUTH_WORDS = {
    'ann', 'annot', 'annots', 'anno', 'annotation', 'annotations', 'label', 'labels', 'labelled', 'labeled', 'mask',
    'masks', 'gt', 'gtfine', 'gtcoarse', 'ground', 'truth', 'groundtruth', 'seg', 'segs', 'segmentation',
    'segmentations', 'segmentationclass', 'segmentationclassaug', 'target', 'targets', 'maps', 'xml', 'xmls',
}  # fmt: skip
# They say nothing: img_dir, gtFine_trainvaltest.
_EMPTY_WORDS = {'dir', 'folder', 'trainvaltest', 'trainvaltest1', 'semantic'}
_GLUED = re.compile(rf'({"|".join(sorted(_SPLIT_WORDS, key=len, reverse=True))})(\d{{4}})?(.*)')
_TRUTH_ENDINGS = (
    'gtfine_labeltrainids', 'gtfine_labelids', 'labeltrainids', 'labelids', 'segmentation', 'groundtruth', 'annotation',
    'labels', 'label', 'masks', 'mask', 'seg', 'gt', 'l',
)  # fmt: skip
_TRUTH_ENDING = re.compile(rf'^(.+?)[_\-. ]({"|".join(_TRUTH_ENDINGS)})$')
_IMAGE_ENDING = re.compile(r'^(.+)[_\-. ](leftimg8bit|image|img|rgb|sat)$')


def split_of_word(word: str) -> str | None:
    """Tell which split a word names: 'Training', 'valid', 'train2017'."""
    return _SPLIT_WORDS.get(re.sub(r'\d{4}$', '', fold(word)))


def split_of_name(name: str) -> str | None:
    """Tell which split the name of a file has in it: 'instances_train2017', 'val_annotations'; None if not one."""
    found = {split_of_word(word) for word in re.split(r'[_\-. ]+', PurePosixPath(name).stem)} - {None}
    return found.pop() if len(found) == 1 else None


class Place:
    """Where a file lies, apart from whether it is an image or the truth about one.

    Images and their truth have the same ``key`` in ``images/train`` and ``labels/train``, ``train/images`` and
    ``train/masks``, ``train`` and ``trainannot``, ``leftImg8bit/val/ulm`` and ``gtFine/val/ulm``.

    Args:
        folder (str): Relative to the user's folder, with ``/``.
    """

    def __init__(self, folder: str):
        self.split: str | None = None
        self.is_truth = False
        rest = []
        for part in PurePosixPath(folder).parts:
            words = _words(part)
            if words is None:
                rest.append(fold(part))
                continue
            split, is_truth = words
            self.split = self.split or split
            self.is_truth |= is_truth
        self.key = (self.split, *rest)


def place_of(name: str) -> Place:
    """Tell the place of a file."""
    return Place(str(PurePosixPath(name).parent))


def image_stem(name: str) -> str:
    """Give what the name of an image shares with that of its truth."""
    stem = fold(PurePosixPath(name).stem)
    match = _IMAGE_ENDING.match(stem)
    return match.group(1) if match else stem


def truth_stems(name: str) -> list[str]:
    """Give the image stems that truth of this name can belong to, the likeliest first."""
    stem = fold(PurePosixPath(name).stem)
    stems = [stem, fold(PurePosixPath(stem).stem)]  # a.jpg.png
    match = _TRUTH_ENDING.match(stem)
    return [*stems, match.group(1)] if match else stems


def has_truth_ending(name: str) -> bool:
    """Tell whether a file says itself that it is truth: ``x_mask.png``."""
    return bool(_TRUTH_ENDING.match(fold(PurePosixPath(name).stem)))


def _words(part: str) -> tuple[str | None, bool] | None:
    """Read a folder's name as a split and a role; None where it has a word of its own in it."""
    split, is_truth = None, False
    for word in re.split(r'[_\-. ]+', fold(part)):
        if match := _GLUED.fullmatch(word):
            rest = match.group(3)
            if not rest or rest in _IMAGE_WORDS or rest in _TRUTH_WORDS:
                split, word = _SPLIT_WORDS[match.group(1)], rest
        if word in _TRUTH_WORDS:
            is_truth = True
        elif word and word not in _IMAGE_WORDS and word not in _EMPTY_WORDS:
            return None
    return split, is_truth
