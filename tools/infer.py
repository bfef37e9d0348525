"""Predict on images: a picture of each result, a line of JSON as each comes, and one JSON file of all."""

import argparse
import sys

from vik_mm_cli.command_line import add_config_arguments, add_tile_arguments, check_tile_arguments, parse
from vik_mm_cli.errors import BadInputError, end_on_user_errors

MAX_ERRORS_SHOWN = 20


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file, or a file of tools/export.py')
    parser.add_argument(
        'images',
        nargs='+',
        metavar='image_or_folder',
        help='image files, or folders, which are searched with all folders below',
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='DIR',
        help='where pictures, results.jsonl and results.json go; must hold none of the images',
    )
    parser.add_argument('--backbone', metavar='vik-s', help='what tools/train.py was given')
    parser.add_argument('--device', help='default: cuda where there is a GPU, or cpu')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='lowest score of objects that are drawn (default: %(default)s)'
    )
    parser.add_argument('--no-pictures', action='store_true', help='write no pictures of the results')
    parser.add_argument('--amp', action='store_true', help='compute in mixed precision')
    add_tile_arguments(parser)
    return parse(parser, argv, check_tile_arguments)


def predict(model, image, out, args):
    """Predict on one image and write its pictures; return its record."""
    from vik_mm.inference.input_images import OUTPUT_ENDINGS

    (result,) = model.predict(
        image.path, batch_size=args.tile_batch_size, score_thr=0, tile=args.tile, overlap=args.overlap
    )
    record = result.to_dict()
    if result.task == 'segmentation':
        record['label_map'] = image.output + OUTPUT_ENDINGS['label_map']
        result.save_label_map(out / record['label_map'])
    if not args.no_pictures:
        record['picture'] = image.output + OUTPUT_ENDINGS['picture']
        result.save(out / record['picture'], args.score_thr)
    return record


def predict_all(model, images, files, stop, args):
    """Predict on all images, or until a signal; raise OSError where nothing more can be written."""
    from rich.progress import track

    from vik_mm.inference.prediction_files import is_disk_full

    for image in track(images, description='images', disable=len(images) == 1):
        if stop.received:
            break
        try:
            files.add(image.path, predict(model, image, files.out, args))
        except Exception as error:
            if is_disk_full(error):
                raise
            files.add_error(image.path, error)


def report(files, num_images):
    """Print how many images were predicted on, and what failed."""
    from vik_mm.inference.input_images import readable

    print(f'{files.num_predicted} of {num_images} images: {readable(files.path)}')
    for name, reason in files.failures[:MAX_ERRORS_SHOWN]:
        print(f'error: {reason if name in reason else f"{name}: {reason}"}', file=sys.stderr)
    if len(files.failures) > MAX_ERRORS_SHOWN:
        print(
            f'error: {len(files.failures) - MAX_ERRORS_SHOWN} more images; see {readable(files.path)}', file=sys.stderr
        )
    if files.first_bug and not files.num_predicted:
        print(f'error: no image could be predicted on; the first error in full:\n{files.first_bug}', file=sys.stderr)


def run(args):
    """Predict on all images."""
    from vik_mm.checkpoints import check_checkpoint_file, load_checkpoints_as_data
    from vik_mm.config import load_config
    from vik_mm.deploy import exported_format
    from vik_mm.inference import Model
    from vik_mm.inference.input_images import find_images, readable
    from vik_mm.inference.prediction_files import PredictionFiles, StopSignals, check_writable
    from vik_mm.inference.tiling import check_task

    check_writable(args.out)
    found = find_images(args.images, args.out)
    if exported_format(args.checkpoint) is None:
        check_checkpoint_file(args.checkpoint)
    load_checkpoints_as_data()
    cfg = load_config(args.config, args.cfg_options, backbone=args.backbone, is_safe=args.safe_config)
    model = Model(cfg, args.checkpoint, args.device, args.amp)
    if args.tile is not None:
        check_task(model.task)
    files = PredictionFiles(args.out)
    for note in found.notes:
        print(f'note: {note}', file=sys.stderr)
    fatal = None
    with StopSignals() as stop:
        try:
            with files:
                predict_all(model, found.images, files, stop, args)
        except OSError as error:
            fatal = error
        except KeyboardInterrupt:  # a second signal
            pass
    report(files, len(found.images))
    for message in found.errors:
        print(f'error: {message}', file=sys.stderr)
    if fatal:
        raise BadInputError(
            f'the output folder {readable(args.out)} cannot be written to any more ({fatal.strerror or fatal}); '
            f'what is done is in {readable(files.path)}'
        )
    sys.exit(stop.exit_code or (1 if files.failures or found.errors else 0))


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
