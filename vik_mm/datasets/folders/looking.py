"""Looks what is in a user's folder; asks back where that can be read in more than one way."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from vik_mm.datasets.wording import enumerate_some
from vik_mm.errors import BadInputError

from . import coco, image_folder, masks, voc, yolo
from .class_files import find_class_files, read_class_file
from .folder_names import SPLITS
from .images import note_kinds, survey_images
from .listing import Listing, ending
from .mask_classes import IGNORED, LabelScheme, choose_scheme, cityscapes_scheme
from .mask_files import fits, survey_masks
from .notes import Notes
from .placing import place_objects
from .samples import Contents, Sample
from .splits import complete_splits, note_duplicates

TASKS = ('classification', 'detection', 'instance', 'segmentation')
_BOXES = ('detection', 'instance')


@dataclass(frozen=True)
class _Format:
    recognise: Callable[[Listing], str | None]
    read: Callable[[Listing, str | None, Notes], Contents]
    tasks: tuple[str, ...]


FORMATS = {
    'coco': _Format(coco.recognise, coco.read, _BOXES),
    'yolo': _Format(yolo.recognise, yolo.read, _BOXES),
    'voc': _Format(voc.recognise, voc.read, ('detection',)),
    'cityscapes': _Format(masks.recognise_cityscapes, masks.read, ('segmentation',)),
    'masks': _Format(masks.recognise, masks.read, ('segmentation',)),
    'imagefolder': _Format(image_folder.recognise, image_folder.read, ('classification',)),
}


@dataclass(frozen=True)
class FoundData:
    """What :func:`look` found.

    Args:
        name (str): The folder's name.
        source (Path): The folder.
        format (str): One of ``FORMATS``.
        task (str): 'classification', 'detection', 'instance' (boxes and masks) or 'segmentation'.
        classes (tuple[str, ...]): Names in the order of the labels.
        samples (list[Sample]): What can be used, each with its split; objects are in pixels of the loaded image.
        are_splits_given (bool): Whether the validation split is the folder's own.
        notes (tuple[str, ...]): What was found and done, and what was left out, for people.
        scheme (LabelScheme | None): For segmentation: which value of a mask is which class. Defaults to None.
        map_counts (dict[str, dict[int, int]] | None): For segmentation: pixels of each label, by split; 255 counts for
            nothing. Defaults to None.
    """

    name: str
    source: Path
    format: str
    task: str
    classes: tuple[str, ...]
    samples: list[Sample]
    are_splits_given: bool
    notes: tuple[str, ...]
    scheme: LabelScheme | None = None
    map_counts: dict[str, dict[int, int]] | None = None

    def of_split(self, split: str) -> list[Sample]:
        """List the samples of a split, in the order of their names."""
        return sorted((each for each in self.samples if each.split == split), key=lambda each: each.image)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that there are."""
        there = {each.split for each in self.samples}
        return tuple(split for split in SPLITS if split in there)

    def class_counts(self, split: str) -> Counter:
        """Count the images (classification), objects or pixels (segmentation) of each label in a split."""
        if self.map_counts is not None:
            return Counter(self.map_counts.get(split, {}))
        samples = self.of_split(split)
        if self.task == 'classification':
            return Counter(each.label for each in samples)
        return Counter(each.label for sample in samples for each in sample.objects if not each.is_crowd)


def look(
    folder: str | os.PathLike,
    *,
    format: str | None = None,
    task: str | None = None,
    class_file: str | os.PathLike | None = None,
    val_share: float = 0.2,
    seed: int = 0,
) -> FoundData:
    """Look what is in a folder: its format, its task, its classes, its splits, and what is wrong with it.

    All images and annotations are read. Nothing is written.

    Args:
        folder (str | PathLike): The user's folder.
        format (str, optional): One of ``FORMATS``; None to recognise it. Defaults to None.
        task (str, optional): One of ``TASKS``; None to recognise it. Defaults to None.
        class_file (str | PathLike, optional): Names of the classes, or names and colours; None for what lies in the
            folder. Defaults to None.
        val_share (float): Share of the images to validate on, where the folder has no validation split.
            Defaults to 0.2.
        seed (int): Of that draw. Defaults to 0.

    Returns:
        FoundData: What was found.

    Raises:
        FileNotFoundError: If the folder or the class file does not exist.
        BadInputError: If nothing is recognised, if several readings are possible, or if there is nothing to train on.
            The message says what to do.
    """
    notes = Notes()
    listing = open_folder(folder, notes, format, task, class_file, val_share)
    format = _choose(listing, format, task)
    contents = FORMATS[format].read(listing, task, notes)
    samples = _with_facts(listing, contents.samples, notes)
    scheme = map_counts = None
    classes = contents.classes
    if FORMATS[format].tasks == _BOXES or format == 'voc':
        samples = [sample for sample in samples if place_objects(sample, notes)]
        task = _boxes_or_masks(samples, task, listing, notes)
    else:
        task = FORMATS[format].tasks[0]
    if task == 'segmentation':
        samples, scheme, counts = _with_masks(listing, format, samples, notes)
        classes = scheme.classes
    samples = complete_splits(samples, contents.are_splits_given, str(listing.root), val_share, seed, notes)
    if task == 'segmentation':
        map_counts = _sum_counts(samples, counts)
    note_duplicates(samples, notes)
    is_given = contents.are_splits_given and not any('were drawn' in line for line in notes.lines())
    found = FoundData(
        listing.root.name, listing.root, format, task, classes, samples, is_given, notes.lines(), scheme, map_counts
    )
    return _judged(found, notes)


def open_folder(
    folder: str | os.PathLike,
    notes: Notes,
    format: str | None,
    task: str | None,
    class_file: str | os.PathLike | None,
    val_share: float,
) -> Listing:
    """Check the arguments of :func:`look`, and list the folder's files.

    Args:
        folder (str | PathLike): The user's folder.
        notes (Notes): Takes what is left out.
        format (str | None): As for :func:`look`.
        task (str | None): As for :func:`look`.
        class_file (str | PathLike | None): As for :func:`look`.
        val_share (float): As for :func:`look`.

    Returns:
        Listing: Its files.

    Raises:
        FileNotFoundError: If the folder or the class file does not exist.
        BadInputError: If an argument does not fit.
    """
    for option, value, allowed in (('--data-format', format, tuple(FORMATS)), ('--data-task', task, TASKS)):
        if value is not None and value not in allowed:
            raise BadInputError(f'{option} {value} is unknown; choose from {", ".join(allowed)}')
    if not 0 < val_share < 1:
        raise BadInputError(f'val_share={val_share} must lie between 0 and 1')
    listing = Listing(Path(folder).expanduser().resolve(), notes)
    if class_file is not None:
        listing.given_classes = read_class_file(Path(class_file).expanduser())
    return listing


def _choose(listing: Listing, format: str | None, task: str | None) -> str:
    if not listing.images:
        endings = Counter(ending(name) or 'without ending' for name in listing.files)
        there = ', '.join(f'{number:,} {kind}' for kind, number in endings.most_common(5))
        raise BadInputError(f'{listing.root} holds no images; there are {there}')
    if format is not None:
        if FORMATS[format].recognise(listing) is None:
            others = _readings(listing)
            raise BadInputError(
                f'{listing.root} holds no data in the format {format}; {_describe(others)}; docs/data_formats.md shows '
                'what each format looks like'
            )
        if task is not None and task not in FORMATS[format].tasks:
            raise BadInputError(
                f'--data-task {task} does not go with the format {format}, which is for '
                f'{" and ".join(FORMATS[format].tasks)}'
            )
        return format
    readings = _readings(listing)
    fitting = [name for name in readings if task is None or task in FORMATS[name].tasks]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        wanted = f' for the task {task}' if task else ''
        raise BadInputError(
            f'{listing.root} has {len(listing.images):,} images, and nothing{wanted} is recognised that says what is '
            f'in them; {_describe(readings)}; docs/data_formats.md shows what each format looks like'
        )
    choices = [f'--data-format {name} ({FORMATS[name].tasks[0]}: {readings[name]})' for name in fitting]
    raise BadInputError(f'{listing.root} can be read in {len(fitting)} ways; choose one: {" or ".join(choices)}')


def _readings(listing: Listing) -> dict[str, str]:
    readings: dict[str, str] = {}
    for name, each in FORMATS.items():
        # Folders named images and masks are no classes.
        if name == 'imagefolder' and readings:
            continue
        if (what := each.recognise(listing)) is not None:
            readings[name] = what
    return readings


def _describe(readings: dict[str, str]) -> str:
    if not readings:
        return f'the formats are {", ".join(FORMATS)}'
    return 'what is there: ' + '; '.join(f'{name} ({what})' for name, what in readings.items())


def _with_facts(listing: Listing, samples: list[Sample], notes: Notes) -> list[Sample]:
    """Look at all images; those that cannot be read are left out."""
    good = []
    for sample, facts in zip(samples, survey_images(listing.path(each.image) for each in samples)):
        if facts.problem:
            notes.add('images that cannot be read, left out', f'{sample.image}: {facts.problem}')
            continue
        sample.facts = facts
        good.append(sample)
    if not good:
        raise BadInputError(f'{listing.root}: no image can be used: {"; ".join(notes.lines())}')
    note_kinds(((each.image, each.facts) for each in good if each.facts), notes)
    return good


def _boxes_or_masks(samples: list[Sample], task: str | None, listing: Listing, notes: Notes) -> str:
    """Decide between detection and instance segmentation: masks where every object has an outline."""
    objects = [each for sample in samples for each in sample.objects]
    plain = [each for each in objects if not each.is_crowd]
    bare = sum(each.outline is None for each in plain)
    if not plain:
        raise BadInputError(
            f'{listing.root}: no object is left to train on: {"; ".join(notes.lines()) or "all images are empty"}'
        )
    if task is None:
        task = 'detection' if bare else 'instance'
        if 0 < bare < len(plain):
            notes.say(
                f'{bare:,} of {len(plain):,} objects have no outline, so boxes are trained, not masks; --data-task '
                'instance leaves these objects out and trains masks'
            )
    elif task == 'instance' and bare == len(plain):
        raise BadInputError(f'{listing.root}: no object has an outline, so only --data-task detection is possible')
    if task == 'instance':
        for sample in samples:
            for each in sample.objects:
                if each.outline is None:
                    notes.add('objects without an outline, left out', sample.image)
            sample.objects = [each for each in sample.objects if each.outline is not None]
    return task


def _with_masks(
    listing: Listing, format: str, samples: list[Sample], notes: Notes
) -> tuple[list[Sample], LabelScheme, dict[str, dict[int, int]]]:
    """Look at all masks, and find out which value is which class."""
    surveys = survey_masks(listing.path(each.label_map or '') for each in samples)
    masks.check_surveys(samples, surveys, notes)
    good = []
    for sample, survey in zip(samples, surveys):
        if survey.problem or sample.facts is None:
            continue
        how = fits(survey.size, sample.facts)
        if how == 'scale':
            notes.add('masks of another size than their image and of the same shape, which were scaled', sample.image)
        if how:
            good.append((sample, survey))
        else:
            notes.add('images whose mask has another size and shape, left out', sample.image)
    if not good:
        raise BadInputError(f'{listing.root}: no mask can be used: {"; ".join(notes.lines())}')
    used = [survey for _, survey in good]
    files = find_class_files(listing)
    if format == 'cityscapes' and not files:
        scheme = cityscapes_scheme(used, masks.has_train_ids(samples), notes)
    else:
        scheme = choose_scheme(used, files, str(listing.root), notes)
    kept, counts = [], {}
    for sample, survey in good:
        found = scheme.counts(survey)
        sample.map_labels = found.keys() - {IGNORED}
        if not sample.map_labels:
            notes.add('images in whose mask all pixels are ignored, left out', sample.image)
            continue
        kept.append(sample)
        counts[sample.image] = found
    return kept, scheme, counts


def _sum_counts(samples: Iterable[Sample], counts: dict[str, dict[int, int]]) -> dict[str, dict[int, int]]:
    sums: dict[str, Counter] = {}
    for sample in samples:
        sums.setdefault(sample.split or '', Counter()).update(counts[sample.image])
    return {split: dict(found) for split, found in sums.items()}


def _judged(found: FoundData, notes: Notes) -> FoundData:
    """Say what will surprise: classes that never occur, splits without objects."""
    occurring = found.class_counts('train')
    if missing := [name for k, name in enumerate(found.classes) if not occurring[k]]:
        notes.say(
            f'{len(missing)} of {len(found.classes)} classes never occur in the training split: '
            f'{enumerate_some(missing)}'
        )
    if found.task in _BOXES:
        if not occurring:
            raise BadInputError(f'{found.source}: the images to train on have no objects: {"; ".join(notes.lines())}')
        for split in found.splits:
            samples = found.of_split(split)
            empty = sum(not each.objects for each in samples)
            if empty == len(samples):
                notes.say(f'no image of the split {split} has an object; scores on it mean nothing')
            elif empty:
                notes.say(f'images without objects in the split {split}: {empty:,} of {len(samples):,}')
    return replace(found, notes=notes.lines())
