"""Segmentation: a mask beside each image, in folders as CamVid, ADE20K, Cityscapes and many others have them."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from vik_mm.errors import BadInputError

from .folder_names import has_truth_ending
from .listing import Listing, ending, fold
from .mask_files import MaskSurvey, survey_masks
from .notes import Notes
from .pairing import Pairs
from .samples import Contents, Sample
from .splits import assign_lists, assign_places, read_split_lists

_ENDINGS = {'.png', '.bmp', '.tif', '.tiff', '.gif', '.webp', '.jpg', '.jpeg'}
# Of Cityscapes: pictures for people, and numbers of single objects.
_NO_LABELS = re.compile(r'.*_(color|colour|instanceids|instancetrainids)')
_CITYSCAPES = re.compile(r'.*_gt(fine|coarse)_(labelids|labeltrainids)')
_OBJECT_MASKS = 'segmentationobject'
_NUM_LOOKED_AT = 5
_MANY_VALUES = 256


def recognise(listing: Listing) -> str | None:
    """Tell what there is of masks in general; None if nothing, or if they are Cityscapes'."""
    pairs = {} if is_cityscapes(listing) else _find_pairs(listing)
    sample = survey_masks(listing.path(name) for name in list(pairs.values())[:_NUM_LOOKED_AT])
    if not any(survey.counts and len(survey.counts) <= _MANY_VALUES for survey in sample):
        return None
    mask = next(iter(pairs.values()))
    return f'a mask for each of {len(pairs):,} images ({mask})'


def recognise_cityscapes(listing: Listing) -> str | None:
    """Tell what there is of Cityscapes' layout; None if nothing."""
    return 'masks named ..._gtFine_labelIds.png' if is_cityscapes(listing) else None


def is_cityscapes(listing: Listing) -> bool:
    """Tell whether masks are named as Cityscapes names them."""
    return any(_CITYSCAPES.fullmatch(fold(PurePosixPath(name).stem)) for name in listing.images)


def has_train_ids(samples: Iterable[Sample]) -> bool:
    """Tell whether the masks are of Cityscapes' 19 train ids, not of its 34 ids."""
    return any(fold(sample.label_map or '').endswith('_labeltrainids.png') for sample in samples)


def read(listing: Listing, task: str | None, notes: Notes) -> Contents:
    """Read a folder of this format; classes are found out from the values of the masks, later.

    Args:
        listing (Listing): The folder.
        task (str | None): What is wanted, if that is known.
        notes (Notes): Takes what is mended and left out.

    Returns:
        Contents: Images, each with the path of its mask.

    Raises:
        BadInputError: If an image has several masks.
    """
    found = _find_pairs(listing)
    samples = [Sample(image, None, label_map=mask) for image, mask in found.items()]
    pairs, masks = Pairs(listing), set(found.values())
    for name in listing.images:
        if name in found or name in masks or _is_aside(name):
            continue
        kind = 'masks without an image' if pairs.place(name).is_truth else 'images without a mask'
        notes.add(f'{kind}, left out', name)
    lists = read_split_lists(listing, found, notes, 'Segmentation')
    are_given = assign_lists(samples, lists, notes) if lists else assign_places(samples, pairs)
    if not are_given and (lists := read_split_lists(listing, found, notes)):
        are_given = assign_lists(samples, lists, notes)
    return Contents((), samples, are_given)


def _is_aside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(_NO_LABELS.fullmatch(fold(path.stem))) or _OBJECT_MASKS in map(fold, path.parts)


def _find_pairs(listing: Listing) -> dict[str, str]:
    """Find the mask of each image: by folders of masks, or else by names such as ``x_mask.png``."""
    places = Pairs(listing, ())
    in_folders = [name for name in listing.images if places.place(name).is_truth]
    by_name = [name for name in listing.images if has_truth_ending(name)]
    for masks in (in_folders, by_name):
        apart = set(masks)
        pairs = Pairs(listing, [name for name in listing.images if name not in apart and not _is_aside(name)])
        candidates = [name for name in masks if ending(name) in _ENDINGS and not _is_aside(name)]
        if any(_CITYSCAPES.fullmatch(fold(PurePosixPath(name).stem)) for name in candidates):
            candidates = _of_cityscapes(candidates)
        found: dict[str, str] = {}
        for name in candidates:
            image = pairs.image_of(name)
            if image is None:
                continue
            if image in found:
                raise BadInputError(
                    f'{listing.root}: {image} has two masks, {found[image]} and {name}; move the folder or the files '
                    'that are not meant out of it'
                )
            found[image] = name
        if found:
            return dict(sorted(found.items()))
    return {}


def _of_cityscapes(names: list[str]) -> list[str]:
    for kind in ('_labeltrainids', '_labelids'):
        if found := [name for name in names if fold(PurePosixPath(name).stem).endswith(kind)]:
            return found
    return names


def check_surveys(samples: list[Sample], surveys: list[MaskSurvey], notes: Notes) -> None:
    """Count what is special about masks."""
    for sample, survey in zip(samples, surveys):
        name = sample.label_map or ''
        if survey.problem:
            notes.add('masks that cannot be read, left out with their images', f'{name}: {survey.problem}')
        if survey.is_blurred:
            notes.add('masks saved as JPEG, whose blurred values were brought back to 0 and 255', name)
