"""Which images are for training and which for validation: as the folder says, or drawn."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from vik_mm.errors import BadInputError

from .class_files import read_text
from .folder_names import SPLITS, split_of_word
from .listing import IMAGE_ENDINGS, Listing, ending, fold
from .notes import Notes
from .pairing import Pairs
from .samples import Sample


def read_split_lists(listing: Listing, images: Iterable[str], notes: Notes, folder: str = '') -> dict[str, set[str]]:
    """Read files such as ``train.txt`` and ``val.txt``, in which each line names an image.

    Args:
        listing (Listing): The user's folder.
        images (Iterable[str]): Images that can be meant.
        notes (Notes): Takes the names for which there is no image.
        folder (str): Last part of the folder that the files must lie in, or '' for the highest that has some.
            Defaults to ''.

    Returns:
        dict[str, set[str]]: Images of each split; empty if there are no such files.
    """
    candidates: dict[str, dict[str, str]] = defaultdict(dict)
    for name in listing.with_ending('.txt'):
        path = PurePosixPath(name)
        word = 'trainval' if fold(path.stem) == 'trainval' else split_of_word(path.stem)
        if word and (not folder or fold(path.parent.name) == fold(folder)):
            candidates[str(path.parent)][word] = name
    known = set(images)
    for _, files in sorted(candidates.items(), key=lambda item: (item[0].count('/'), item[0])):
        if 'train' in files:
            files.pop('trainval', None)
        found: dict[str, set[str]] = {}
        for word, name in sorted(files.items()):
            if (members := read_list(listing, name, known, notes)) is not None:
                found['train' if word == 'trainval' else word] = members
        if found:
            return found
    return {}


def read_list(listing: Listing, name: str, known: set[str], notes: Notes) -> set[str] | None:
    """Read one list of images.

    Args:
        listing (Listing): The user's folder.
        name (str): The list's path.
        known (set[str]): Images that can be meant.
        notes (Notes): Takes the lines for which there is no image.

    Returns:
        set[str] | None: The images; None if fewer than half of the lines name one.
    """
    lines = [line.strip() for line in read_text(listing.path(name)).splitlines() if line.strip()]
    members, missing = set(), []
    for line in lines:
        found = _meant(listing, line, known) or _meant(listing, line.split()[0], known)
        if len(found) == 1:
            members.add(found[0])
        else:
            missing.append(line)
    if 2 * len(members) < len(lines) or not lines:
        return None
    for line in missing:
        notes.add(f'lines of {name} that name no image of the folder, or several', line)
    return members


def _meant(listing: Listing, line: str, known: set[str]) -> list[str]:
    exact = listing.find(line)
    if exact in known and exact is not None:
        return [exact]
    if ending(line) in IMAGE_ENDINGS:
        return [name for name in listing.images_named(line) if name in known]
    return [name for name in listing.images_with_stem(PurePosixPath(line).name) if name in known]


def assign_lists(samples: Sequence[Sample], lists: dict[str, set[str]], notes: Notes) -> bool:
    """Give each sample the split whose list names it; in place.

    Args:
        samples (Sequence[Sample]): All of them.
        lists (dict[str, set[str]]): Images of each split.
        notes (Notes): Takes what stands in two lists.

    Returns:
        bool: Whether splits are given now.
    """
    val = lists.get('val', lists.get('test', set()))
    if not lists or ('train' in lists and lists['train'] <= val):
        if lists:
            notes.say('the images for training are also those for validation; a validation split is drawn from them')
        return False
    for sample in samples:
        of = [split for split in SPLITS if sample.image in lists.get(split, ())]
        # What a model is judged by must not be trained on.
        sample.split = 'val' if 'val' in of else 'test' if 'test' in of else 'train' if of else None
        if len(of) > 1:
            notes.add(f'images listed for {" and ".join(of)}, used for {sample.split}', sample.image)
    return True


def assign_places(samples: Sequence[Sample], pairs: Pairs) -> bool:
    """Give each sample the split that its folder's name says; in place. Tells whether any does."""
    for sample in samples:
        sample.split = pairs.place(sample.image).split
    return any(sample.split for sample in samples)


def complete_splits(
    samples: list[Sample], are_given: bool, source: str, val_share: float, seed: int, notes: Notes
) -> list[Sample]:
    """Make sure that there is something to train on and something to validate on.

    Args:
        samples (list[Sample]): All that can be used; changed in place.
        are_given (bool): Whether the folder says which image is for what.
        source (str): The folder, for messages.
        val_share (float): Share of the images to validate on, where it has to be drawn.
        seed (int): Of the draw.
        notes (Notes): Takes what was done.

    Returns:
        list[Sample]: Those that have a split.

    Raises:
        BadInputError: If there is nothing to train on, or too little to draw from.
    """
    if not are_given:
        for sample in samples:
            sample.split = 'train'
    for sample in samples:
        if sample.split is None:
            notes.add('images that belong to no split, left out', sample.image)
    samples = [sample for sample in samples if sample.split]
    counts = Counter(sample.split for sample in samples)
    if not counts['train']:
        there = ', '.join(f'{split}: {number}' for split, number in counts.items())
        raise BadInputError(
            f'{source} has no images to train on (usable images: {there or "none"}; {"; ".join(notes.lines())}); name '
            'the folder or list of the images to train on "train"'
        )
    if counts['val']:
        return samples
    train = [sample for sample in samples if sample.split == 'train']
    drawn = draw(train, val_share, seed)
    if not drawn:
        raise BadInputError(f'{source} has {len(train)} different image(s) to train on; at least 2 are needed')
    for sample in drawn:
        sample.split = 'val'
    kept = '; the test split is kept for testing' if counts['test'] else ''
    notes.say(
        f'no validation split was found: {len(drawn):,} of {len(train):,} images were drawn for it (share {val_share}, '
        f'seed {seed}, each class in proportion){kept}'
    )
    return samples


def draw(samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Draw a share of the samples, of each class in proportion.

    An image of several classes counts for the rarest of them. Files with the same content are drawn together. The order
    of a class comes from digests of the names: a new image leaves the others where they were, but for a few.

    Args:
        samples (Sequence[Sample]): To draw from.
        share (float): Between 0 and 1.
        seed (int): Of the draw.

    Returns:
        list[Sample]: The drawn ones; empty if there is only one group of equal files.
    """
    groups = defaultdict(list)
    for sample in samples:
        groups[sample.facts.digest if sample.facts else sample.image].append(sample)
    if len(groups) < 2:
        return []
    occurring = Counter(label for sample in samples for label in labels_of(sample))
    strata = defaultdict(list)
    for group in groups.values():
        labels = {label for sample in group for label in labels_of(sample)}
        strata[min(labels, key=lambda label: (occurring[label], label), default=-1)].append(group)
    ranked = [sorted(stratum, key=lambda group: _rank(group, seed)) for _, stratum in sorted(strata.items())]
    drawn, wanted = [], 0.0
    for stratum in ranked:
        # What rounding leaves over goes to the next class; one image of each class stays for training.
        wanted += len(stratum) * share
        number = min(max(round(wanted), int(len(stratum) > 1)), len(stratum) - 1)
        wanted -= number
        drawn += stratum[:number]
    if not drawn:
        drawn = [min((stratum[0] for stratum in ranked), key=lambda group: _rank(group, seed))]
    return [sample for group in drawn for sample in group]


def labels_of(sample: Sample) -> set[int]:
    """Tell the classes that occur in a sample."""
    if sample.label is not None:
        return {sample.label}
    return {each.label for each in sample.objects if not each.is_crowd} | sample.map_labels


def _rank(group: list[Sample], seed: int) -> bytes:
    name = min(sample.image for sample in group)
    return hashlib.sha256(f'{seed}/{name}'.encode()).digest()


def note_duplicates(samples: Sequence[Sample], notes: Notes) -> None:
    """Count images that lie in two splits, byte for byte."""
    first: dict[bytes, Sample] = {}
    for sample in sorted(samples, key=lambda sample: SPLITS.index(sample.split or 'test')):
        if not sample.facts:
            continue
        other = first.setdefault(sample.facts.digest, sample)
        if other.split != sample.split:
            notes.add(
                f'images of {sample.split} that are also in {other.split}, byte for byte (scores will be too good)',
                f'{sample.image} = {other.image}',
            )
