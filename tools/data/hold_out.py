"""Hold out images of a COCO annotation file, to make choices on that neither training nor the final test has seen.

    python tools/data/hold_out.py data/carparts/instances_train.json --count 80

writes ``instances_train_kept.json`` and ``instances_train_held_out.json`` beside it. The split depends only on the
file, the count and the seed.
"""

import argparse
import json
import random
from pathlib import Path

from vik_mm_cli.errors import BadInputError, end_on_user_errors
from vik_mm_cli.files import write_atomically


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO file')
    parser.add_argument('--count', type=int, required=True, help='images to hold out')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw (default: %(default)s)')
    parser.add_argument('--out-dir', help="where the two files go (default: the annotation file's folder)")
    return parser.parse_args(argv)


def split(content, count, seed):
    """Divide the content of a COCO file in two: what is kept, and what is held out."""
    numbers = sorted(image['id'] for image in content['images'])
    if not 0 < count < len(numbers):
        raise BadInputError(f'--count {count} must be from 1 to {len(numbers) - 1}, less than the images of the file')
    held_out = set(random.Random(seed).sample(numbers, count))
    for is_held_out in (False, True):
        images = [image for image in content['images'] if (image['id'] in held_out) == is_held_out]
        objects = [each for each in content['annotations'] if (each['image_id'] in held_out) == is_held_out]
        yield {**content, 'images': images, 'annotations': objects}


def run(args):
    """Write both files."""
    source = Path(args.annotations)
    try:
        content = json.loads(source.read_bytes())
    except ValueError as error:
        raise BadInputError(f'{source} cannot be read as JSON: {error}') from error
    if not isinstance(content, dict) or not {'images', 'annotations'} <= content.keys():
        raise BadInputError(f'{source} is no COCO annotation file: it must have "images" and "annotations"')
    parts = list(split(content, args.count, args.seed))
    for name, part in zip(('kept', 'held_out'), parts):
        path = Path(args.out_dir or source.parent, f'{source.stem}_{name}.json')
        write_atomically(json.dumps(part).encode(), path)
        classes = {each.get('category_id') for each in part['annotations']}
        print(f'{path}: {len(part["images"])} images, {len(part["annotations"])} objects of {len(classes)} categories')


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
