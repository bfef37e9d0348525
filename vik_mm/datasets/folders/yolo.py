"""YOLO: a text file for each image, a line for each object, in shares of the image's width and height."""

import math
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from vik_mm.errors import BadInputError

from .class_files import ClassFile, find_class_files, read_text
from .folder_names import SPLITS
from .listing import Listing, ending
from .notes import Notes, listed
from .pairing import Pairs
from .samples import Contents, ObjectTruth, Sample
from .splits import assign_lists, assign_places, read_list, read_split_lists

# Shares beyond this are no rounding and no object that is cut off: they are pixels.
_LARGEST_SHARE = 2.0
_NUM_LOOKED_AT = 50


@dataclass
class _Labels:
    """Objects of all label files, and what is wrong with their lines."""

    objects: dict[str, list[ObjectTruth]] = field(default_factory=dict)
    pixels: list[str] = field(default_factory=list)
    num_lines: int = 0


def recognise(listing: Listing) -> str | None:
    """Tell what there is of this format; None if nothing."""
    if not listing.images:
        return None
    description = _find_description(listing)
    files = _label_files(listing, Pairs(listing), _NUM_LOOKED_AT if description is None else 1)
    if description is None and not any(_looks_like_labels(listing.path(name)) for name in files):
        return None
    if description is None:
        return 'text files with boxes beside the images'
    return f'{description[0]} with class names, and text files with boxes' if files else None


def read(listing: Listing, task: str | None, notes: Notes) -> Contents:
    """Read a folder of this format.

    Args:
        listing (Listing): The folder.
        task (str | None): What is wanted, if that is known.
        notes (Notes): Takes what is mended and left out.

    Returns:
        Contents: Objects in shares of the image.

    Raises:
        BadInputError: If class numbers or coordinates are of another kind than YOLO's.
    """
    pairs = Pairs(listing)
    path, description = _find_description(listing) or (None, {})
    files = _label_files(listing, pairs)
    labels = _Labels()
    only_boxes = 'kpt_shape' in description
    for name in files:
        labels.objects[name] = _read_labels(listing.path(name), name, labels, only_boxes, notes)
    if labels.pixels and 2 * len(labels.pixels) > labels.num_lines:
        raise BadInputError(
            f'{listing.root}: {labels.pixels[0]} is not in shares of the image: YOLO has x, y, width and height '
            'divided by those of the image, so 0 to 1. Divide them'
        )
    for example in labels.pixels:
        notes.add(f'lines with a coordinate beyond {_LARGEST_SHARE:g} times the image, left out', example)
    _note_lonely_labels(listing, pairs, notes)
    names = _class_names(listing, path, description, labels, notes)
    samples = _samples(listing, pairs, labels)
    _drop_unknown(samples, names, notes)
    are_given = _assign_splits(listing, path, description, samples, pairs, notes)
    return Contents(names, _without_bare_tests(samples, files, notes), are_given)


def _find_description(listing: Listing) -> tuple[str, dict] | None:
    """Find data.yaml, or what it is called; it has names and at least one split."""
    for name in sorted(listing.with_ending('.yaml', '.yml'), key=lambda name: (name.count('/'), name)):
        try:
            content = yaml.safe_load(read_text(listing.path(name)))
        except yaml.YAMLError:
            continue
        if isinstance(content, dict) and 'names' in content and any(split in content for split in (*SPLITS, 'valid')):
            return name, content
    return None


def _label_files(listing: Listing, pairs: Pairs, limit: int | None = None) -> dict[str, str]:
    """List label files, each with its image."""
    found: dict[str, str] = {}
    for name in listing.with_ending('.txt'):
        if image := pairs.image_of(name):
            found[name] = image
            if len(found) == limit:
                break
    return found


def _looks_like_labels(path: Path) -> bool:
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    return bool(lines) and all(len(line) >= 5 and _numbers(line) is not None for line in lines)


def _numbers(words: list[str]) -> list[float] | None:
    try:
        numbers = list(map(float, words))
    except ValueError:
        return None
    is_class = math.isfinite(numbers[0]) and numbers[0] == int(numbers[0]) and numbers[0] >= 0
    return numbers if is_class and all(map(math.isfinite, numbers)) else None


def _read_labels(path: Path, name: str, labels: _Labels, only_boxes: bool, notes: Notes) -> list[ObjectTruth]:
    objects, seen = [], set()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f'{name}, line {number}'
        labels.num_lines += 1
        numbers = _numbers(words)
        is_box = numbers is not None and (len(words) in (5, 6) or only_boxes)
        if numbers is None or len(words) < 5 or not is_box and len(words) % 2 == 0:
            notes.add(
                'lines that are neither "class x y width height" nor "class x1 y1 x2 y2 ..." in numbers, left out',
                where,
            )
            continue
        if tuple(numbers) in seen:
            notes.add('objects that stand twice in a label file, used once', where)
            continue
        seen.add(tuple(numbers))
        label, values = int(numbers[0]), numbers[1:]
        if is_box:
            values = values[:4]
        if max(map(abs, values)) > _LARGEST_SHARE:
            labels.pixels.append(f'{where} ({line.strip()[:60]})')
        elif is_box:
            x, y, width, height = values
            objects.append(ObjectTruth(label, (x - width / 2, y - height / 2, width, height)))
        else:
            left, top = min(values[::2]), min(values[1::2])
            box = left, top, max(values[::2]) - left, max(values[1::2]) - top
            objects.append(ObjectTruth(label, box, [values]))
    return objects


def _samples(listing: Listing, pairs: Pairs, labels: _Labels) -> list[Sample]:
    """Make a sample of each image; one without a label file has no objects, which is YOLO's rule."""
    of_image: dict[str, list[ObjectTruth]] = {}
    for name, objects in labels.objects.items():
        of_image[pairs.image_of(name) or ''] = objects
    names = [name for name in listing.images if name in of_image or not pairs.place(name).is_truth]
    return [Sample(name, None, objects=of_image.get(name, []), frame=(1, 1)) for name in names]


def _class_names(
    listing: Listing, path: str | None, description: dict, labels: _Labels, notes: Notes
) -> tuple[str, ...]:
    used = sorted({each.label for objects in labels.objects.values() for each in objects})
    if path is not None:
        source, names = path, _names_of(listing.root / path, description['names'])
    else:
        # A table of colours names the classes of masks.
        file = next((file for file in find_class_files(listing) if not file.colours), None)
        source, names = (file.path, file.names) if isinstance(file, ClassFile) else ('', ())
    if not names:
        if not used:
            raise BadInputError(f'{listing.root}: all label files are empty, so there is nothing to learn')
        notes.say(
            'no class names were found (data.yaml or classes.txt), so classes are called by their numbers; write '
            'classes.txt, one name a line, to name them'
        )
        return tuple(f'class_{k}' for k in range(used[-1] + 1))
    if used and used[0] > 0 and used[-1] == len(names):
        raise BadInputError(
            f'{listing.root}: label files number the classes from {used[0]} to {used[-1]}, and {source} has '
            f'{len(names)} names; YOLO counts from 0, so subtract 1 from each, or add the name that is missing'
        )
    beyond = [label for label in used if label >= len(names)]
    number = sum(each.label >= len(names) for objects in labels.objects.values() for each in objects)
    whole = sum(map(len, labels.objects.values()))
    if 2 * number > whole:
        raise BadInputError(
            f'{listing.root}: {number:,} of {whole:,} objects have class numbers ({listed(beyond)}) for which {source} '
            f'has no name: it names 0 to {len(names) - 1}; add the names that are missing'
        )
    return names


def _names_of(path: Path, names: Any) -> tuple[str, ...]:
    if isinstance(names, list) and names:
        return tuple(map(str, names))
    try:
        numbered = {int(key): str(value) for key, value in names.items()}
    except (AttributeError, ValueError, TypeError):
        numbered = {}
    if not numbered or min(numbered) < 0 or max(numbered) > 100_000:
        raise BadInputError(f'{path}: names must be a list, [cat, dog], or numbers with names, {{0: cat, 1: dog}}')
    return tuple(numbered.get(k, f'class_{k}') for k in range(max(numbered) + 1))


def _drop_unknown(samples: list[Sample], names: tuple[str, ...], notes: Notes) -> None:
    for sample in samples:
        for each in sample.objects:
            if each.label >= len(names):
                notes.add('objects with a class number that has no name, left out', f'{each.label} in {sample.image}')
        sample.objects = [each for each in sample.objects if each.label < len(names)]


def _assign_splits(
    listing: Listing, path: str | None, description: dict, samples: list[Sample], pairs: Pairs, notes: Notes
) -> bool:
    known = [sample.image for sample in samples]
    if path is not None:
        lists = {}
        for split in SPLITS:
            entry = description.get(split) or (description.get('valid') if split == 'val' else None)
            entries = entry if isinstance(entry, list) else [entry] if isinstance(entry, str) else []
            members: set[str] = set()
            for each in entries:
                found = _images_of_entry(listing, path, description.get('path'), str(each), set(known), notes)
                if not found:
                    notes.say(f'{path} has "{split}: {each}", and there are no images')
                members |= found
            if members:
                lists[split] = members
        if 'train' in lists:
            return assign_lists(samples, lists, notes)
    if lists := read_split_lists(listing, known, notes):
        return assign_lists(samples, lists, notes)
    return assign_places(samples, pairs)


def _images_of_entry(listing: Listing, path: str, base: Any, entry: str, known: set[str], notes: Notes) -> set[str]:
    """List the images of one entry, which is a folder or a text file; people move data and leave the paths."""
    parts = [part for part in PurePosixPath(entry.replace('\\', '/')).parts if part not in ('.', '/')]
    bases = [part for part in PurePosixPath(str(base or '').replace('\\', '/')).parts if part not in ('.', '/')]
    folder = PurePosixPath(path).parent
    # From the whole path to ever shorter ends of it: train/images of ../train/images or /any/folder/train/images.
    tries = [[*bases, *parts], parts] + [parts[k:] for k in range(1, len(parts))]
    for tail in tries:
        target = (folder / PurePosixPath(*tail)).as_posix() if tail else str(folder)
        if '..' in PurePosixPath(target).parts:
            continue
        if ending(target) == '.txt' and (name := listing.find(target)):
            return read_list(listing, name, known, notes) or set()
        prefix = '' if target == '.' else f'{target.rstrip("*").rstrip("/")}/'.casefold()
        if found := {name for name in known if name.casefold().startswith(prefix)}:
            return found
    return set()


def _without_bare_tests(samples: list[Sample], files: dict[str, str], notes: Notes) -> list[Sample]:
    """Leave out a split for tests whose truth is kept elsewhere, and count images without a label file."""
    labelled = set(files.values())
    bare = [sample for sample in samples if sample.image not in labelled]
    has_truth = {sample.split for sample in samples if sample.image in labelled}
    kept = []
    for sample in samples:
        if sample.split == 'test' and 'test' not in has_truth:
            notes.add('images for tests without any label file, left out', sample.image)
            continue
        kept.append(sample)
    for sample in bare:
        if sample.split != 'test' or 'test' in has_truth:
            notes.add('images without a label file, used as images without objects', sample.image)
    return kept


def _note_lonely_labels(listing: Listing, pairs: Pairs, notes: Notes) -> None:
    """Count label files that have no image."""
    for name in listing.with_ending('.txt'):
        if pairs.place(name).is_truth and not pairs.image_of(name) and _looks_like_labels(listing.path(name)):
            notes.add('label files without an image, left out', name)
