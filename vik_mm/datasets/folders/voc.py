"""Pascal VOC: an XML file for each image."""

from collections.abc import Iterable
from xml.etree import ElementTree

from vik_mm.errors import BadInputError

from .class_files import find_class_files
from .listing import Listing, fold
from .notes import Notes, listed
from .pairing import Pairs
from .samples import Contents, ObjectTruth, Sample
from .splits import assign_lists, assign_places, read_split_lists

_NUM_LOOKED_AT = 20


def recognise(listing: Listing) -> str | None:
    """Tell what there is of this format; None if nothing."""
    names = listing.with_ending('.xml')[:_NUM_LOOKED_AT]
    is_voc = listing.images and any(_root_of(listing, name) is not None for name in names)
    return 'XML files with boxes' if is_voc else None


def read(listing: Listing, task: str | None, notes: Notes) -> Contents:
    """Read a folder of this format.

    Args:
        listing (Listing): The folder.
        task (str | None): What is wanted, if that is known.
        notes (Notes): Takes what is mended and left out.

    Returns:
        Contents: Objects in pixels of the size that each XML file says.

    Raises:
        BadInputError: If there is no object at all.
    """
    pairs = Pairs(listing)
    named: list[tuple[Sample, list[tuple[str, ObjectTruth]]]] = []
    taken: dict[str, str] = {}
    for name in listing.with_ending('.xml'):
        root = _root_of(listing, name)
        if root is None:
            notes.add('XML files that cannot be read or are no annotations, left out', name)
            continue
        image = _image_of(listing, pairs, name, root)
        if image is None:
            notes.add('XML files without an image, left out', name)
            continue
        if image in taken:
            notes.add('XML files of an image that has another one, left out', f'{name}, {taken[image]}')
            continue
        taken[image] = name
        named.append((Sample(image, None, frame=_frame(root)), _read_objects(root, name, notes)))
    for image in listing.images:
        if image not in taken and not pairs.place(image).is_truth:
            notes.add('images without an XML file, left out', image)
    classes = _class_names(listing, {label for _, objects in named for label, _ in objects}, notes)
    for sample, objects in named:
        for label, each in objects:
            each.label = classes.index(label)
            sample.objects.append(each)
    samples = [sample for sample, _ in named]
    lists = read_split_lists(listing, taken, notes, 'Main') or read_split_lists(listing, taken, notes)
    are_given = assign_lists(samples, lists, notes) if lists else assign_places(samples, pairs)
    return Contents(classes, samples, are_given)


def _root_of(listing: Listing, name: str) -> ElementTree.Element | None:
    try:
        root = ElementTree.fromstring(listing.path(name).read_bytes())
    except ElementTree.ParseError:
        return None
    return root if root.tag == 'annotation' else None


def _image_of(listing: Listing, pairs: Pairs, name: str, root: ElementTree.Element) -> str | None:
    """Find the image: by the name of the XML file first, because people rename both and leave what is inside."""
    if image := pairs.image_of(name, is_anywhere=True):
        return image
    found = listing.images_named(root.findtext('filename', ''))
    if len(found) > 1:
        found = [image for image in found if pairs.place(image).key == pairs.place(name).key]
    return found[0] if len(found) == 1 else None


def _frame(root: ElementTree.Element) -> tuple[float, float] | None:
    width, height = _number(root.findtext('size/width')), _number(root.findtext('size/height'))
    return (width, height) if width and height and width > 0 and height > 0 else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _read_objects(root: ElementTree.Element, name: str, notes: Notes) -> list[tuple[str, ObjectTruth]]:
    # The challenge's own files count pixels from 1 and name the last one; all tools write edges, from 0.
    is_original = (root.findtext('source/database') or '').startswith('The VOC')
    objects: list[tuple[str, ObjectTruth]] = []
    for entry in root.iter('object'):
        label = (entry.findtext('name') or '').strip()
        found = [_number(entry.findtext(f'bndbox/{side}')) for side in ('xmin', 'ymin', 'xmax', 'ymax')]
        sides = [side for side in found if side is not None]
        if not label or len(sides) < 4:
            notes.add('objects without a name or without four numbers as bndbox, left out', name)
            continue
        left, top, right, bottom = sides
        if left > right or top > bottom:
            notes.add('boxes whose first corner is the last one, turned round', name)
            left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
        if is_original:
            left, top = left - 1, top - 1
        is_difficult = (entry.findtext('difficult') or '').strip() == '1'
        if is_difficult:
            notes.add('objects marked as difficult, neither trained on nor counted in scores', name)
        each = ObjectTruth(0, (left, top, right - left, bottom - top), is_crowd=is_difficult)
        if any(label == other and each.box == known.box for other, known in objects):
            notes.add('objects that stand twice in an XML file, used once', name)
            continue
        objects.append((label, each))
    return objects


def _class_names(listing: Listing, used: Iterable[str], notes: Notes) -> tuple[str, ...]:
    names = sorted(used)
    if not names:
        raise BadInputError(f'{listing.root}: no XML file of an image has an object with a name and a bndbox')
    note_similar_names(names, notes)
    for file in find_class_files(listing):
        if set(names) <= set(file.names) and not file.colours:
            notes.say(f'the order of the classes is that of {file.path}')
            return file.names
    return tuple(names)


def note_similar_names(names: Iterable[str], notes: Notes) -> None:
    """Say which classes differ only by case or spaces, which is rarely meant."""
    forms: dict[str, list[str]] = {}
    for name in names:
        forms.setdefault(''.join(fold(name).split()), []).append(name)
    for same in forms.values():
        if len(same) > 1:
            notes.say(f'classes that differ only by case or spaces are different classes: {listed(same)}')
