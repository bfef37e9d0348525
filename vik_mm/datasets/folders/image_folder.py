"""ImageFolder: the class of an image is the name of its folder."""

from collections import Counter
from pathlib import PurePosixPath

from vik_mm.errors import BadInputError

from .class_files import find_class_files, read_text
from .folder_names import split_of_word
from .listing import Listing
from .notes import Notes
from .samples import Contents, Sample
from .splits import assign_lists, read_split_lists
from .voc import note_similar_names


def recognise(listing: Listing) -> str | None:
    """Tell what there is of this format; None if nothing."""
    classes = {label for _, label in _layout(listing).values() if label}
    return f'{len(classes)} folders of images' if len(classes) > 1 else None


def read(listing: Listing, task: str | None, notes: Notes) -> Contents:
    """Read a folder of this format.

    Args:
        listing (Listing): The folder.
        task (str | None): What is wanted, if that is known.
        notes (Notes): Takes what is mended and left out.

    Returns:
        Contents: One label for each image.

    Raises:
        BadInputError: If there are not two classes.
    """
    samples, labels = [], []
    for image, (split, label) in _layout(listing).items():
        if not label:
            notes.add('images that lie in no folder of a class, left out', image)
            continue
        samples.append(Sample(image, split))
        labels.append(label)
    folders = sorted(set(labels))
    if len(folders) < 2:
        raise BadInputError(
            f'{listing.root} has images of {len(folders)} class(es) ({", ".join(folders)}); a classifier needs two, so '
            'a folder each: <class>/<image>, or train/<class>/<image> and val/<class>/<image>'
        )
    note_similar_names(folders, notes)
    for sample, label in zip(samples, labels):
        sample.label = folders.index(label)
    are_given = any(sample.split for sample in samples)
    if not are_given and (lists := read_split_lists(listing, [sample.image for sample in samples], notes)):
        are_given = assign_lists(samples, lists, notes)
    if are_given:
        _note_one_sided(samples, folders, notes)
    return Contents(_names(listing, folders, notes), samples, are_given)


def _layout(listing: Listing) -> dict[str, tuple[str | None, str]]:
    """Tell the split and the class of each image; the class is '' where it lies in no folder of one."""
    parts = {image: PurePosixPath(image).parts for image in listing.images}
    if not parts:
        return {}
    # Archives unpack into a folder of their name.
    depth = 0
    while all(len(each) > depth + 2 for each in parts.values()):
        first = {each[depth] for each in parts.values()}
        if len(first) > 1 or split_of_word(next(iter(first))):
            break
        depth += 1
    parts = {image: each[depth:] for image, each in parts.items()}
    folders = {each[0] for each in parts.values() if len(each) > 1}
    # 'train' may be a class too: then images lie in it directly, beside the folders of other classes.
    deep = {each[0] for each in parts.values() if len(each) > 2}
    splits = {name for name in folders if split_of_word(name) and name in deep}
    if splits:
        return {
            image: (split_of_word(each[0]), each[1]) if len(each) > 2 and each[0] in splits else (None, '')
            for image, each in parts.items()
        }
    inner = {each[1] for each in parts.values() if len(each) > 2}
    if inner and all(map(split_of_word, inner)) and all(len(each) > 2 for each in parts.values()):
        return {image: (split_of_word(each[1]), each[0]) for image, each in parts.items()}
    return {image: (None, each[0] if len(each) > 1 else '') for image, each in parts.items()}


def _names(listing: Listing, folders: list[str], notes: Notes) -> tuple[str, ...]:
    """Read people's names of folders that are called by codes, ``n01440764 tench``, where a file has them."""
    for file in find_class_files(listing):
        named = dict(line.split(None, 1) for line in read_text(listing.path(file.path)).splitlines() if ' ' in line)
        if set(folders) <= named.keys() and len({named[folder].strip() for folder in folders}) == len(folders):
            notes.say(f'the names of the classes are those of {file.path}')
            return tuple(named[folder].strip() for folder in folders)
    return tuple(folders)


def _note_one_sided(samples: list[Sample], folders: list[str], notes: Notes) -> None:
    counts = Counter((sample.split, sample.label) for sample in samples)
    if not any(sample.split == 'train' for sample in samples):
        return
    for k, folder in enumerate(folders):
        if not counts['train', k]:
            notes.say(f'the class {folder} has no images to train on')
