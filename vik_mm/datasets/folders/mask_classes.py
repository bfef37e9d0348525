"""Finds out which class each value of masks is; asks where the files do not say it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vik_mm.errors import BadInputError

from .class_files import ClassFile
from .mask_files import Mask, MaskSurvey
from .notes import Notes, listed

IGNORED = 255
_BINARY = ('background', 'object')
# Share of pixels whose colour stands in no table: edges that were smoothed.
_MAX_UNKNOWN = 0.05

# Cityscapes numbers 34 things, and trains on 19 of them.
CITYSCAPES = (
    'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign', 'vegetation', 'terrain',
    'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle',
)  # fmt: skip
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@dataclass(frozen=True)
class LabelScheme:
    """How values become labels.

    Args:
        classes (tuple[str, ...]): Names in the order of the labels.
        labels (dict[int, int]): Label of each value; values that are not in it are ignored.
        of_colours (bool): Whether the values are colours. Defaults to False.
    """

    classes: tuple[str, ...]
    labels: dict[int, int]
    of_colours: bool = False

    def counts(self, survey: MaskSurvey) -> dict[int, int]:
        """Count the pixels of each label in a mask."""
        found: Counter = Counter()
        for value, number in (survey.colour_counts() if self.of_colours else survey.counts).items():
            found[self.labels.get(value, IGNORED)] += number
        return found

    def apply(self, mask: Mask) -> np.ndarray:
        """Make a label map of a mask, uint8."""
        values = mask.colours() if self.of_colours else mask.values
        known = np.array(sorted(self.labels), np.int64)
        at = np.searchsorted(known, values).clip(0, len(known) - 1)
        labels = np.array([self.labels[value] for value in known.tolist()], np.uint8)
        return np.where(known[at] == values, labels[at], np.uint8(IGNORED))


def choose_scheme(surveys: Sequence[MaskSurvey], files: Sequence[ClassFile], source: str, notes: Notes) -> LabelScheme:
    """Find out which class each value is.

    Args:
        surveys (Sequence[MaskSurvey]): What the masks hold.
        files (Sequence[ClassFile]): Lists of classes that lie beside them, or the one that the user gave.
        source (str): The folder, for messages.
        notes (Notes): Takes what was concluded.

    Returns:
        LabelScheme: Of all masks together.

    Raises:
        BadInputError: If the values can mean different things, or do not agree with the list of classes.
    """
    palettes = {survey.palette for survey in surveys if survey.palette}
    tables = [file for file in files if file.colours]
    if any(survey.is_colour for survey in surveys) or len(palettes) > 1:
        return _by_colours(surveys, tables, source, notes)
    if tables and (scheme := _by_table_of_numbers(surveys, tables, notes)):
        return scheme
    values = sorted(set().union(*(survey.counts for survey in surveys)))
    return _by_numbers(values, files, source, notes)


def cityscapes_scheme(surveys: Sequence[MaskSurvey], are_train_ids: bool, notes: Notes) -> LabelScheme:
    """Give Cityscapes' 19 classes, of masks of its 34 ids or of the 19 train ids."""
    highest = max((value for survey in surveys for value in survey.counts if value != IGNORED), default=0)
    if highest > (18 if are_train_ids else 33):
        raise BadInputError(
            f'the masks hold the number {highest}, and Cityscapes has only {19 if are_train_ids else 34}; write '
            'classes.txt into the folder, one name a line from number 0 on, if the classes are your own'
        )
    notes.say("the classes are Cityscapes' 19; write classes.txt into the folder if they are your own")
    ids = range(19) if are_train_ids else _CITYSCAPES_IDS
    return LabelScheme(CITYSCAPES, {value: label for label, value in enumerate(ids)})


def _by_colours(surveys, tables, source, notes) -> LabelScheme:
    counts: Counter = Counter()
    for survey in surveys:
        counts.update(survey.colour_counts())
    whole = sum(counts.values())
    best, share = None, 1.0
    for table in tables:
        known = set(map(_code, table.colours))
        unknown = sum(number for colour, number in counts.items() if colour not in known) / whole
        if best is None or unknown < share:
            best, share = table, unknown
    if best is not None and share <= _MAX_UNKNOWN:
        if share:
            strangers = [_name(colour) for colour in counts if colour not in set(map(_code, best.colours))]
            notes.say(f'{share:.2%} of the pixels have colours that {best.path} does not list; they are ignored')
            notes.say(f'colours that {best.path} does not list: {listed(strangers)}')
        return _of_table(best, notes)
    if best is None and len(counts) == 2 and 0 in counts:
        colour = max(counts)
        notes.say(f'the masks have two colours: black is taken for background, {_name(colour)} for the object')
        return LabelScheme(_BINARY, {0: 0, colour: 1}, of_colours=True)
    lines = '\n'.join(f'  name_{k},{_name(colour)}' for k, (colour, _) in enumerate(counts.most_common(20)))
    why = (
        f'no file says which class each of the {len(counts):,} colours is'
        if best is None
        else f'{best.path} lists too few of the {len(counts):,} colours: {share:.1%} of the pixels have others'
    )
    raise BadInputError(
        f'{source}: the masks are in colours, and {why}. Write a file classes.csv, a line "name,red,green,blue" for '
        f'each class ("void" is ignored), and name it with --data-classes FILE. The colours that occur, the largest '
        f'area first:\n{lines}'
    )


def _by_table_of_numbers(surveys, tables, notes) -> LabelScheme | None:
    """Read a table of colours for masks that have a palette, or that have greys of the table as numbers."""
    used: set[int] = set()
    for survey in surveys:
        used |= survey.colour_counts().keys()
    for table in tables:
        if used <= set(map(_code, table.colours)):
            return _of_table(table, notes)
    return None


def _of_table(table: ClassFile, notes: Notes) -> LabelScheme:
    notes.say(f'the colours of the masks are those of {table.path}')
    if table.void:
        notes.say(f'pixels of {", ".join(table.names[k] for k in sorted(table.void))} are ignored')
    classes = [name for k, name in enumerate(table.names) if k not in table.void]
    classes = list(dict.fromkeys(classes))
    labels = {
        _code(colour): IGNORED if k in table.void else classes.index(table.names[k])
        for k, colour in enumerate(table.colours)
    }
    return LabelScheme(tuple(classes), labels, of_colours=True)


def _by_numbers(values: list[int], files: Sequence[ClassFile], source: str, notes: Notes) -> LabelScheme:
    numbers = [value for value in values if value != IGNORED]
    if IGNORED in values and numbers in ([0], []):
        return _binary(files, notes)
    if numbers in ([0], []):
        raise BadInputError(f'{source}: all masks hold only {values}; there is nothing to tell apart')
    highest = numbers[-1]
    if numbers[0] < 0 or highest > IGNORED:
        raise BadInputError(
            f'{source}: the masks hold numbers from {numbers[0]} to {highest}; classes are numbered 0 to 254, and 255 '
            'is ignored. Number them anew'
        )
    if IGNORED in values:
        notes.say('pixels with the number 255 are ignored')
    lists = [file for file in files if len(file.names) <= IGNORED]
    long_enough = [file for file in lists if len(file.names) > highest]
    if long_enough:
        file = min(long_enough, key=lambda file: len(file.names))
        notes.say(f'the names of the classes are those of {file.path}')
        return LabelScheme(file.names, {k: k for k in range(len(file.names))})
    if lists and max(len(file.names) for file in lists) > 1:
        file = max(lists, key=lambda file: len(file.names))
        if numbers[0] == 1 and len(file.names) == highest:
            notes.say(f'the masks number the classes from 1; {file.path} names them in that order')
            return LabelScheme(file.names, {k + 1: k for k in range(highest)})
        raise BadInputError(
            f'{source}: the masks hold the number {highest}, and {file.path} has {len(file.names)} names, for 0 to '
            f'{len(file.names) - 1}; add the names that are missing ("background" as the first line, if 0 is that)'
        )
    if numbers == [0, 1]:
        return LabelScheme(_BINARY, {0: 0, 1: 1})
    if 2 * len(numbers) < highest + 1:
        raise BadInputError(
            f'{source}: the masks hold the numbers {listed(numbers)}, with gaps: they can be numbers of classes or '
            'grey values that stand for classes. Write a file and name it with --data-classes: one name a line for the '
            f'numbers 0 to {highest}, or lines "name,grey,grey,grey", such as "road,{numbers[-1]},{numbers[-1]},'
            f'{numbers[-1]}"'
        )
    notes.say(
        f'no class names were found, so classes are called by their numbers, 0 to {highest}; write classes.txt, one '
        'name a line, and name it with --data-classes'
    )
    return LabelScheme(tuple(f'class_{k}' for k in range(highest + 1)), {k: k for k in range(highest + 1)})


def _binary(files: Sequence[ClassFile], notes: Notes) -> LabelScheme:
    names = next((file.names for file in files if len(file.names) in (1, 2)), _BINARY)
    names = names if len(names) == 2 else (_BINARY[0], *names)
    notes.say(f'the masks hold 0 and 255 only: 0 is taken for {names[0]}, 255 for {names[1]}')
    return LabelScheme(names, {0: 0, IGNORED: 1})


def _code(colour: Sequence[int]) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]


def _name(code: int) -> str:
    return f'{code >> 16},{code >> 8 & 255},{code & 255}'
