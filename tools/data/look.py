"""Say what is in a folder of data, what is wrong with it, and draw some of its pictures with the truth in them.

    python tools/data/look.py my_folder

Nothing is written into the folder. The pictures go to ``work_dirs/<folder name>/look``.
"""

import argparse
from pathlib import Path

from vik_mm_cli.errors import BadInputError, end_on_user_errors

# As in vik_mm.datasets.folders, which cannot be imported without all the rest.
FORMATS = ('coco', 'yolo', 'voc', 'cityscapes', 'masks', 'imagefolder')
TASKS = ('classification', 'detection', 'instance', 'segmentation')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='folder with your data')
    parser.add_argument('--out', help='where the pictures go (default: work_dirs/<folder name>/look)')
    parser.add_argument('--data-format', choices=FORMATS, help='format of the data (default: recognised)')
    parser.add_argument('--data-task', choices=TASKS, help='what to read the data for (default: recognised)')
    parser.add_argument('--data-classes', metavar='FILE', help='a class in each line: a name, or "name,red,green,blue"')
    return parser.parse_args(argv)


def run(args):
    """Look, print, draw."""
    folder = Path(args.folder).expanduser().resolve()
    out = Path(args.out or Path('work_dirs', folder.name, 'look')).expanduser().resolve()
    if out == folder or folder in out.parents:
        raise BadInputError(f'--out {out} lies in the folder of the data, into which nothing is written')
    from vik_mm.datasets.folders import look
    from vik_mm.datasets.folders.contact_sheet import draw_sheets
    from vik_mm.datasets.folders.report import describe

    found = look(folder, format=args.data_format, task=args.data_task, class_file=args.data_classes)
    print('\n'.join(describe(found)))
    paths = draw_sheets(found, out)
    print(f'\nPictures with the truth drawn in: {", ".join(map(str, paths))}')


def main(argv=None):
    args = parse_args(argv)
    with end_on_user_errors():
        run(args)


if __name__ == '__main__':
    main()
