"""Predict on images: a picture of each result, and one JSON file of all, for each of the three tasks."""

import argparse
import json
import sys
from pathlib import Path

from rich.progress import track

import vik_mm  # noqa: F401  registers ViK, also for configs without custom_imports
from vik_mm.engine import add_config_arguments, check_checkpoint_file, load_checkpoints_as_data, load_config
from vik_mm.errors import BadInputError
from vik_mm.export import exported_format
from vik_mm.inference import Predictor

ENDINGS = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm'}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file, or a file of tools/export.py')
    parser.add_argument('images', nargs='+', metavar='image_or_folder', help='folders are searched whole')
    parser.add_argument('--out', required=True, metavar='DIR', help='where pictures and results.json go')
    parser.add_argument('--backbone', metavar='vik-s', help='what tools/train.py was given')
    parser.add_argument('--device', help='default: cuda where there is a GPU, or cpu')
    parser.add_argument('--score-thr', type=float, default=0.3, help='draw objects from this on (default: %(default)s)')
    parser.add_argument('--no-pictures', action='store_true', help='write results.json alone')
    return parser.parse_args(argv)


def find_images(paths):
    """List (image, its name below the output folder)."""
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            below = sorted(p for p in path.rglob('*') if p.suffix.lower() in ENDINGS)
            if not below:
                raise FileNotFoundError(f'folder {path} holds no image ({", ".join(sorted(ENDINGS))})')
            found += [(p, p.relative_to(path)) for p in below]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise FileNotFoundError(f'image {path} does not exist')
    names = [name for _, name in found]
    # Two folders may hold files of one name; the second gets a number.
    return [(p, name.with_stem(f'{name.stem}_{k}') if name in names[:k] else name) for k, (p, name) in enumerate(found)]


def main():
    args = parse_args()
    try:
        images = find_images(args.images)
        if exported_format(args.checkpoint) is None:
            check_checkpoint_file(args.checkpoint)
        load_checkpoints_as_data()
        cfg = load_config(args.config, args.cfg_options, backbone=args.backbone, is_safe=args.safe_config)
        predictor = Predictor(cfg, args.checkpoint, device=args.device)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'error: {error}')
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    results, unreadable = [], []
    interrupted = False
    try:
        for path, name in track(images, description='images', disable=len(images) == 1):
            try:
                result, sample = predictor(path)
            except BadInputError as error:
                unreadable.append(str(error))
                continue
            if result['task'] == 'segmentation':
                result['label_map'] = str(name.with_suffix('.labels.png'))
                predictor.save_label_map(sample, out / result['label_map'])
            if not args.no_pictures:
                result['picture'] = str(name.with_suffix('.png'))
                predictor.draw(path, sample, out / result['picture'], args.score_thr)
            results.append(result)
    except KeyboardInterrupt:
        interrupted = True
    # Also of an interrupted run: what is done is done.
    (out / 'results.json').write_text(json.dumps(results, indent=1))
    print(f'{len(results)} of {len(images)} images: {out / "results.json"}')
    for message in unreadable:
        print(f'error: {message}', file=sys.stderr)
    if interrupted:
        sys.exit(130)
    sys.exit(1 if unreadable else 0)


if __name__ == '__main__':
    main()
