"""Says in two lines what of a data set is used, and what is left out and why."""

import os
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from vik_mm.compat.dataset_reading import watch_reading
from vik_mm.errors import BadInputError

from .coco_file import CocoFile, explain_unreadable
from .label_maps import count_labels, find_loader
from .wording import count, count_of, enumerate_some

# On a data set that was read while it was watched.
_FILE = 'coco_file'
# Endings of pictures that people have; data sets read some of them.
_PICTURES = {'.avif', '.bmp', '.gif', '.heic', '.jp2', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'}


@dataclass
class Summary:
    """What :func:`summarise` found out.

    Args:
        used (str): What is used.
        left_out (list[str]): What is not, each with its reason.
        warnings (list[str]): What is legal, and rarely meant.
        classes (list[str] | None): Names in the order of the labels, where the annotation file says so.
    """

    used: str
    left_out: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    classes: list[str] | None = None

    def lines(self, split: str) -> list[str]:
        """Write it down, two lines."""
        return [f'{split}: {self.used}', f'{split}: left out: {", ".join(self.left_out) or "nothing"}']


def check_while_reading() -> None:
    """Have data sets that are built from now on checked while they are read; see :func:`watch_reading`."""
    watch_reading(_take_coco_file, explain_unreadable, _explain_no_samples)


def summarise(dataset, num_classes: int | None, ignore_index: int) -> Summary:
    """Find out what of a data set is used, and refuse what can train nothing.

    Args:
        dataset (BaseDataset): One that is read, and not a wrapper.
        num_classes (int | None): Classes that the model tells apart, if they are known.
        ignore_index (int): Label of pixels that count for nothing.

    Returns:
        Summary: What is used, and what is not.

    Raises:
        BadInputError: If an image that is named is missing, if there is nothing to learn, or if annotations are wrong.
    """
    if not len(dataset):
        raise _explain_no_samples(dataset)
    survey = _Survey(dataset)
    classes = dataset.metainfo.get('classes') or ()
    where = _where(dataset)
    if file := vars(dataset).pop(_FILE, None):
        return _summarise_coco(dataset, file, survey)
    used = count(len(dataset), 'image')
    if survey.num_objects is not None:
        used += f', {count(survey.num_objects, "object")}'
    summary = Summary(f'{used}, {len(classes)} classes ({where})')
    _count_other_files(summary, survey)
    if survey.labels:
        _judge_occurrence(dataset, summary, classes, survey.labels, 'image')
    if hasattr(dataset, 'reduce_zero_label') and (loader := find_loader(dataset)):
        _judge_missing_maps(summary, dataset, survey)
        counts = count_labels(dataset, loader, num_classes or len(classes), ignore_index)
        _judge_label_maps(dataset, summary, counts, ignore_index)
    return summary


class _Survey:
    """One pass over the samples: which files they name, and whether these are there."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.image_ids, self.num_objects = set(), None
        self.labels: Counter = Counter()
        self.missing_maps: list[str] = []
        self._listings: dict[str, set[str]] = {}
        self._used: dict[str, set[str]] = {}
        for k in range(len(dataset)):
            self._look_at(dataset.get_data_info(k))

    def _look_at(self, info):
        path = info.get('img_path')
        # Others are arrays in memory, lists of channels, or addresses of other file systems.
        if isinstance(path, str) and '://' not in path and not self._is_there(path):
            source = getattr(self.dataset, 'ann_file', '') or 'the data set'
            raise BadInputError(
                f'{source} names the image {path}, which does not exist; put it there, correct data_prefix, or take it '
                'out of the annotations'
            )
        label_map = info.get('seg_map_path')
        if isinstance(label_map, str) and '://' not in label_map and not self._is_there(label_map):
            self.missing_maps.append(label_map)
        self.image_ids.add(info.get('img_id'))
        if isinstance(info.get('instances'), list):
            self.num_objects = (self.num_objects or 0) + len(info['instances'])
        labels = info.get('gt_label')
        self.labels.update([labels] if isinstance(labels, (int, np.integer)) else labels if labels is not None else ())

    def _is_there(self, path):
        folder, name = os.path.split(path)
        self._used.setdefault(folder, set()).add(name)
        return name in self._list(folder)

    def _list(self, folder):
        if folder not in self._listings:
            is_folder = os.path.isdir(folder)
            self._listings[folder] = {e.name for e in os.scandir(folder) if e.is_file()} if is_folder else set()
        return self._listings[folder]

    def other_files(self) -> Counter:
        """Count, by their endings, the files that lie among the images of a data set that takes what it finds."""
        endings: Counter = Counter()
        if getattr(self.dataset, 'ann_file', '') or not self._used:
            return endings
        # Folders of classes without a single image.
        for name in getattr(self.dataset, 'folder_to_idx', None) or ():
            self._list(os.path.join(self.dataset.img_prefix, name))
        for folder, names in self._listings.items():
            others = (name for name in names - self._used.get(folder, set()) if not name.startswith('.'))
            endings.update(os.path.splitext(name)[1].lower() or 'without ending' for name in others)
        return endings


def _count_other_files(summary, survey):
    if not (endings := survey.other_files()):
        return
    kinds = ', '.join(f'{number:,} {ending}' for ending, number in endings.most_common(5))
    summary.left_out.append(f'{count(sum(endings.values()), "file")} of other types ({kinds})')
    if pictures := sorted(_PICTURES & set(endings)):
        reads = getattr(survey.dataset, 'extensions', None) or (getattr(survey.dataset, 'img_suffix', ''),)
        option = 'extensions' if hasattr(survey.dataset, 'extensions') else 'img_suffix'
        summary.warnings.append(
            f'{", ".join(pictures)} files are not read, the data set reads {", ".join(sorted(reads))}; convert them, '
            f'or set {option} of the data set'
        )


def _take_coco_file(dataset, content):
    file = CocoFile(content, dataset.ann_file)
    file.check_classes(dataset.metainfo['classes'])
    setattr(dataset, _FILE, file)


def _summarise_coco(dataset, file: CocoFile, survey: _Survey) -> Summary:
    classes = dataset.metainfo['classes']
    unused = file.unused_objects(classes, survey.image_ids, _loads_masks(dataset))
    num_objects = len(file.ids) - sum(len(positions) for _, positions in unused)
    empty = file.images_without_objects(classes)
    is_used = np.array([image in survey.image_ids for image in file.image_ids], bool)
    used = f'{count_of(int(is_used.sum()), len(is_used), "image")}, {count_of(num_objects, len(file.ids), "object")}'
    if background := int((empty & is_used).sum()):
        used += f', {background:,} of the images without objects'
    summary = Summary(f'{used}, {len(classes)} classes ({_where(dataset)})')
    summary.left_out = _images_left_out(dataset, file, is_used, empty) + _objects_left_out(file, unused)
    summary.classes = file.classes_in_order(classes)
    if not dataset.test_mode and not num_objects:
        raise BadInputError(_nothing_left(dataset, summary.left_out))
    file.check_boxes(unused)
    if summary.classes != list(classes) and len(summary.classes) == len(classes):
        summary.warnings.append(
            f'{file.path} has the classes in another order than the data set, and labels are numbered in the order of '
            'the file: names in pictures and tables are wrong; set '
            f'metainfo=dict(classes={tuple(summary.classes)})'
        )
    if num_objects and len(summary.classes) == len(classes):
        is_object = np.ones(len(file.ids), bool)
        is_object[[k for _, positions in unused for k in positions]] = False
        occurring = np.bincount(file.categories[is_object], minlength=len(file.names))
        counts = Counter({k: occurring[file.names.index(name)] for k, name in enumerate(summary.classes)})
        _judge_occurrence(dataset, summary, summary.classes, counts, 'object')
    return summary


def _images_left_out(dataset, file, is_used, empty) -> list[str]:
    options = {} if dataset.test_mode else dataset.filter_cfg or {}
    reasons, left = [], ~is_used
    smallest = options.get('min_size', 0)
    for reason, applies in (
        ('without objects', empty & bool(options.get('filter_empty_gt', False))),
        (f'with a side below {smallest} pixels (filter_cfg)', file.sizes.min(1, initial=np.inf) < smallest),
        ('beyond `indices`' if dataset._indices is not None else 'for other reasons', left),
    ):
        if number := int((left & applies).sum()):
            reasons.append(f'{count(number, "image")} {reason}')
            left = left & ~applies
    return reasons


def _objects_left_out(file, unused) -> list[str]:
    return [
        f'{count(len(positions), "object")} {reason} (annotation {file.ids[positions[0]]}'
        f'{", ..." if len(positions) > 1 else ""})'
        for reason, positions in unused
    ]


def _loads_masks(dataset) -> bool:
    return any(getattr(transform, 'with_mask', False) for transform in getattr(dataset.pipeline, 'transforms', ()))


def _explain_no_samples(dataset) -> BadInputError:
    left_out = []
    if file := vars(dataset).pop(_FILE, None):
        classes = dataset.metainfo['classes']
        empty = file.images_without_objects(classes)
        left_out = _images_left_out(dataset, file, np.zeros(len(empty), bool), empty)
        left_out += _objects_left_out(file, file.unused_objects(classes, None, _loads_masks(dataset)))
    return BadInputError(_nothing_left(dataset, left_out))


def _nothing_left(dataset, left_out: list[str]) -> str:
    where = _where(dataset)
    if hasattr(dataset, 'cat_ids'):
        reasons = ', '.join(left_out) or 'the file has no images'
        return f'{where} holds nothing to train on: left out: {reasons}; correct it, or classes and filter_cfg'
    suffix = getattr(dataset, 'img_suffix', None)
    if suffix and not dataset.ann_file:
        folder = dataset.data_prefix.get('img_path')
        there = sorted({os.path.splitext(name)[1] for _, _, names in os.walk(folder) for name in names})
        return (
            f'{folder} holds no image: {type(dataset).__name__} reads *{suffix}, and there are '
            f'{enumerate_some("*" + ending for ending in there) or "no files"}; set img_suffix and '
            'seg_map_suffix of the data set'
        )
    return f'{where} holds no samples for {type(dataset).__name__}; correct its ann_file, data_prefix or filter_cfg'


def _judge_missing_maps(summary, dataset, survey):
    if not (missing := survey.missing_maps):
        return
    if dataset.test_mode or len(missing) == len(dataset):
        raise BadInputError(
            f'{len(missing):,} of {len(dataset):,} images have no label map: {missing[0]} does not exist; correct '
            'data_prefix.seg_map_path or seg_map_suffix, or take the images away'
        )
    summary.left_out.append(f'{count(len(missing), "image")} without a label map ({enumerate_some(missing, 1)})')


def _judge_label_maps(dataset, summary, counts, ignore_index):
    if not counts.num_maps:
        return
    if counts.problem and not dataset.test_mode:
        raise BadInputError(counts.problem)
    share = counts.pixels[ignore_index] / counts.pixels.sum()
    summary.used += f'; {share:.1%} of the pixels are ignored in the {counts.num_maps} label maps looked at'
    if counts.problem:  # label maps of some test sets are empty on purpose
        summary.warnings.append(counts.problem)
    classes = dataset.metainfo.get('classes') or ()
    _judge_occurrence(dataset, summary, classes, Counter(dict(enumerate(counts.pixels))), 'pixel')


def _judge_occurrence(dataset, summary, classes, counts: Counter, noun: str):
    if dataset.test_mode:
        return
    if missing := [name for k, name in enumerate(classes) if not counts[k]]:
        place = 'label maps looked at have' if noun == 'pixel' else 'data set has'
        summary.warnings.append(
            f'{len(missing)} of {len(classes)} classes never occur: the {place} no {noun} of '
            f'{enumerate_some(missing, 10)}'
        )
    if len(classes) == 1 and noun == 'image':
        summary.warnings.append(f'{classes[0]} is the only class: there is nothing to tell apart')


def _where(dataset) -> str:
    prefix = getattr(dataset, 'data_prefix', None) or {}
    folder = next((p for p in prefix.values() if isinstance(p, str)), '') if isinstance(prefix, dict) else prefix
    return getattr(dataset, 'ann_file', '') or folder or getattr(dataset, 'data_root', '') or type(dataset).__name__
