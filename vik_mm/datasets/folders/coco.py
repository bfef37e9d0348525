"""COCO: JSON files that hold images, objects and categories."""

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from vik_mm.datasets.coco_file import CocoFile, explain_unreadable, is_outline
from vik_mm.errors import BadInputError

from .folder_names import place_of, split_of_name
from .listing import Listing
from .notes import Notes, listed
from .placing import outline_box
from .samples import Contents, ObjectTruth, Sample
from .splits import assign_lists, read_split_lists
from .voc import note_similar_names

_KEYS = (b'"images"', b'"annotations"', b'"categories"')


@dataclass
class _File:
    """One annotation file, and the images of the folder that it names."""

    name: str
    content: dict
    split: str | None
    images: dict[Any, Sample]


def recognise(listing: Listing) -> str | None:
    """Tell what there is of this format; None if nothing."""
    names = _annotation_files(listing) if listing.images else []
    return listed(names) if names else None


def read(listing: Listing, task: str | None, notes: Notes) -> Contents:
    """Read a folder of this format.

    Args:
        listing (Listing): The folder.
        task (str | None): What is wanted, if that is known.
        notes (Notes): Takes what is mended and left out.

    Returns:
        Contents: Objects in pixels of the size that the files say.

    Raises:
        BadInputError: If a file cannot be read, or if two describe the same images.
    """
    files = [_read_file(listing, *each, notes) for each in _contents(listing, notes)]
    files = _without_copies(files, notes)
    classes = _class_names([file.content for file in files], notes)
    samples: list[Sample] = []
    for file in files:
        _read_objects(file, classes, notes)
        has_objects = any(sample.objects for sample in file.images.values())
        if file.split == 'test' and not has_objects:
            notes.add('files without objects (for a test elsewhere), left out', file.name)
            continue
        samples += file.images.values()
    used = {sample.image for file in files for sample in file.images.values()}
    for image in listing.images:
        if image not in used and not place_of(image).is_truth:
            notes.add('images that no annotation file names, left out', image)
    are_given = any(sample.split for sample in samples)
    if not are_given and (lists := read_split_lists(listing, used, notes)):
        are_given = assign_lists(samples, lists, notes)
    return Contents(classes, samples, are_given)


def _annotation_files(listing: Listing) -> list[str]:
    found = []
    for name in listing.with_ending('.json'):
        content = listing.path(name).read_bytes()
        there = [key in content for key in _KEYS]
        if all(there) or any(there[:2]) and not _is_json(content):
            found.append(name)
    return found


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _contents(listing: Listing, notes: Notes) -> list[tuple[str, dict]]:
    """Parse the annotation files; other kinds than objects are left aside where there are objects too."""
    plain: list[tuple[str, dict]] = []
    others: list[tuple[str, dict]] = []
    for name in _annotation_files(listing):
        try:
            content = json.loads(listing.path(name).read_bytes())
        except (ValueError, RecursionError) as error:
            raise explain_unreadable(str(listing.path(name)), error) from error
        sections = [content.get(key) if isinstance(content, dict) else None for key in ('images', 'categories')]
        if not all(isinstance(section, list) and section for section in sections):
            CocoFile(content, str(listing.path(name)))  # says what is wrong, if it is that
            raise BadInputError(f'{listing.path(name)} has no images or no categories; write the file again')
        entries = content.get('annotations')
        entries = entries if isinstance(entries, list) else []
        content['annotations'] = [entry for entry in entries if isinstance(entry, dict)]
        special = any('keypoints' in entry or 'segments_info' in entry for entry in content['annotations'])
        (others if special else plain).append((name, content))
    for name, _ in others if plain else ():
        notes.add('files with keypoints or panoptic segments beside files with objects, left out', name)
    return plain or others


def _read_file(listing: Listing, name: str, content: dict, notes: Notes) -> _File:
    split = split_of_name(name) or place_of(name).split
    images: dict[Any, Sample] = {}
    doubtful = set()
    for entry in content['images']:
        if not isinstance(entry, dict) or not isinstance(entry.get('file_name'), str) or not _is_id(entry.get('id')):
            notes.add('entries of images without an id or a file_name, left out', name)
            continue
        number, path = entry['id'], entry['file_name']
        image = _find_image(listing, name, path, split)
        if image is None:
            notes.add('images that are not there, left out', f'{path} of {name}')
            continue
        if number in images and images[number].image != image:
            notes.add('images that share their id with another image, left out with it', f'{number} in {name}')
            doubtful.add(number)
            continue
        if number in images:
            notes.add('images that are listed twice, used once', f'{path} in {name}')
            continue
        sides: Any = entry.get('width'), entry.get('height')
        is_sized = all(type(side) in (int, float) and side > 0 for side in sides)
        own = split or place_of(image).split
        images[number] = Sample(image, own, frame=sides if is_sized else None)
    if not images:
        first = next((entry.get('file_name') for entry in content['images'] if isinstance(entry, dict)), None)
        raise BadInputError(
            f'{listing.root}: none of the images that {name} names is in the folder ({first} for one); put them there'
        )
    return _File(name, content, split, {number: each for number, each in images.items() if number not in doubtful})


def _find_image(listing: Listing, name: str, path: str, split: str | None) -> str | None:
    folder = name.rpartition('/')[0]
    for beside in (f'{folder}/{path}', path):
        if (found := listing.find(beside.lstrip('/'))) in listing.image_set and found is not None:
            return found
    candidates = listing.images_named(path)
    if len(candidates) > 1:
        candidates = [image for image in candidates if not place_of(image).is_truth] or candidates
    if len(candidates) > 1:
        candidates = [image for image in candidates if place_of(image).split == split] or candidates
    if len(candidates) > 1:
        candidates = [image for image in candidates if image.split('/')[0] == name.split('/')[0]] or candidates
    if len(candidates) > 1:
        raise BadInputError(
            f'{listing.root}: {path}, which {name} names, can be {candidates[0]} or {candidates[1]}; write more of the '
            'path as its file_name, or take one away'
        )
    return candidates[0] if candidates else None


def _is_id(value: Any) -> bool:
    return type(value) in (int, float, str)


def _without_copies(files: list[_File], notes: Notes) -> list[_File]:
    """Leave out a file of all images beside files of their splits; refuse files that contradict each other."""
    members = {file.name: {sample.image for sample in file.images.values()} for file in files}
    in_splits = set().union(*(members[file.name] for file in files if file.split))
    kept = []
    for file in files:
        if not file.split and members[file.name] <= in_splits:
            notes.add('files whose images are all in files of splits too, left out', file.name)
        else:
            kept.append(file)
    owner: dict[str, _File] = {}
    for file in kept:
        for image in sorted(members[file.name]):
            other = owner.setdefault(image, file)
            if other is not file:
                raise BadInputError(
                    f'{other.name} and {file.name} both describe {image}; move the one that is not meant out of the '
                    'folder, or name their splits in their names (train, val, test), each image in one of them'
                )
    return kept


def _class_names(contents: list[dict], notes: Notes) -> tuple[str, ...]:
    """Put the categories of all files together by their names; ids may differ between files."""
    entries: dict[str, dict] = {}
    used = set()
    for content in contents:
        names = {}
        for entry in content['categories']:
            if isinstance(entry, dict) and isinstance(entry.get('name'), str) and _is_id(entry.get('id')):
                names[entry['id']] = entry['name']
                entries.setdefault(entry['name'], entry)
        used |= {
            names.get(each.get('category_id')) for each in content['annotations'] if _is_id(each.get('category_id'))
        }
    groups = {entry.get('supercategory') for entry in entries.values() if entry['name'] in used}
    for name in list(entries):
        if name not in used and name in groups:
            notes.say(f'the category {name} has no objects and is the group of others; it is no class')
            del entries[name]
    if not used - {None}:
        raise BadInputError(
            'no object of the annotation files has a category that they list: there is nothing to learn'
        )
    note_similar_names(entries, notes)
    return tuple(entries)


def _read_objects(file: _File, classes: tuple[str, ...], notes: Notes) -> None:
    labels = {
        entry['id']: classes.index(entry['name'])
        for entry in file.content['categories']
        if isinstance(entry, dict) and _is_id(entry.get('id')) and entry.get('name') in classes
    }
    seen: defaultdict[int, set] = defaultdict(set)
    numbers = set()
    for entry in file.content['annotations']:
        where = f'annotation {entry.get("id")} of {file.name}'
        number = entry.get('image_id')
        sample = file.images.get(number) if _is_id(number) else None
        if sample is None:
            notes.add('objects of images that are not used, left out', where)
            continue
        category = entry.get('category_id')
        if not _is_id(category) or category not in labels:
            notes.add('objects of a category that is not listed, left out', where)
            continue
        each = _read_object(entry, labels[category])
        if each is None:
            notes.add('objects without four numbers as bbox and without an outline, left out', where)
            continue
        content = json.dumps([number, category, entry.get('bbox'), entry.get('segmentation')])
        if content in seen[id(sample)]:
            notes.add('objects that stand twice in a file, used once', where)
            continue
        seen[id(sample)].add(content)
        if _is_id(entry.get('id')):
            if entry['id'] in numbers:
                notes.add('objects that share their id with another object, numbered anew', where)
            numbers.add(entry['id'])
        sample.objects.append(each)


def _read_object(entry: dict, label: int) -> ObjectTruth | None:
    outline = entry.get('segmentation')
    outline = outline if is_outline(outline) else None
    box = entry.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not {type(value) for value in box} <= {int, float}:
        box = outline_box(outline) if outline else None
    if box is None:
        return None
    left, top, width, height = map(float, box)
    area = entry.get('area')
    is_crowd = bool(entry.get('iscrowd')) or bool(entry.get('ignore'))
    return ObjectTruth(
        label, (left, top, width, height), outline, is_crowd, area if type(area) in (int, float) else None
    )
