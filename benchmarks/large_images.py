"""Find small shapes in scenes of 4000 x 3000 pixels: AP50, time and memory of a detector on the whole and in tiles.

    python benchmarks/large_images.py CONFIG CHECKPOINT [--scenes 2] [--tile 64]

The detector is one that was trained on the built-in shapes, such as configs/detection/mask-rcnn_vik-demo_fpn_shapes.py.
Each way runs in a process of its own, so that its peak memory is its own. Writes results/large_images.csv.
"""

import argparse
import csv
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
FIELDS = [
    *('way', 'ap50', 'seconds_per_image', 'peak_mb', 'objects', 'scenes', 'width', 'height', 'scene_size'),
    *('tile', 'overlap', 'batch_size', 'config', 'threads', 'torch', 'python', 'commit'),
]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--scenes', type=int, default=2, help='large pictures (default: %(default)s)')
    parser.add_argument('--size', type=int, nargs=2, default=(4000, 3000), metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--tile', type=int, default=64, help='default: %(default)s, as the detector was trained')
    parser.add_argument('--overlap', type=float, default=0.25, help='default: %(default)s')
    parser.add_argument('--batch-size', type=int, default=16, help='tiles computed together (default: %(default)s)')
    parser.add_argument('--share', type=float, default=0.1, help='of places that hold shapes (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=HERE / 'results/large_images.csv')
    parser.add_argument('--way', choices=['whole', 'tiled'], help=argparse.SUPPRESS)  # in the process of its own
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def draw_large(seed, width, height, share):
    """Draw a large picture: scenes of 64 pixels at random places of a grid, on a plain ground of noise."""
    import numpy as np

    from vik_mm.datasets.shapes import draw_scene

    side = 64
    generator = np.random.default_rng(seed)
    image = generator.normal(110, 6, (height, width, 3)).clip(0, 255).astype(np.uint8)
    boxes, labels = [], []
    places = [(x, y) for y in range(0, height - 2 * side, 2 * side) for x in range(0, width - 2 * side, 2 * side)]
    for number in generator.choice(len(places), round(len(places) * share), replace=False):
        # Off the grid, so that tiles cut scenes anywhere.
        left, top = np.array(places[number]) + generator.integers(0, side, 2)
        scene = draw_scene((seed, int(number)), side)
        image[top : top + side, left : left + side] = scene.image
        for mask, label in zip(scene.masks, scene.labels):
            rows, columns = np.nonzero(mask)
            if len(rows):
                boxes.append([left + columns.min(), top + rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1])
                labels.append(int(label))
    return image, boxes, labels


def write_scenes(folder, args):
    """Write the pictures and their truth, as COCO has it."""
    import json

    import cv2

    from vik_mm.datasets.shapes import CLASSES

    images, annotations = [], []
    for number in range(args.scenes):
        image, boxes, labels = draw_large(number, *args.size, args.share)
        cv2.imwrite(str(folder / f'{number}.png'), image)
        images.append(dict(id=number, file_name=f'{number}.png', width=args.size[0], height=args.size[1]))
        for box, label in zip(boxes, labels):
            box = [float(v) for v in box]
            entry = dict(id=len(annotations) + 1, image_id=number, category_id=label + 1, bbox=box, iscrowd=0)
            annotations.append(dict(entry, area=box[2] * box[3]))
    categories = [dict(id=k + 1, name=name) for k, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'truth.json').write_text(json.dumps(content))


def ap50(folder, found):
    """Average precision at an IoU of 0.5, over all objects of a picture."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(folder / 'truth.json'))
    if not found:
        return 0.0
    evaluation = COCOeval(truth, truth.loadRes(found), 'bbox')
    evaluation.params.maxDets = [1, 100, 10000]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval['precision'][0, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def measure(args):
    """Predict in one way and print a row."""
    import torch

    import vik_mm

    model = vik_mm.load(args.config, args.checkpoint, device='cpu')
    options = dict(tile=args.tile, overlap=args.overlap, batch_size=args.batch_size) if args.way == 'tiled' else {}
    paths = [args.folder / f'{number}.png' for number in range(args.scenes)]
    start = time.perf_counter()
    results = model.predict(paths, score_thr=0.05, **options)
    seconds = (time.perf_counter() - start) / len(paths)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = []
    for number, result in enumerate(results):
        for (x1, y1, x2, y2), score, label in zip(result.boxes.tolist(), result.scores.tolist(), result.labels):
            entry = dict(image_id=number, category_id=int(label) + 1, score=score)
            found.append(dict(entry, bbox=[x1, y1, x2 - x1, y2 - y1]))
    commit = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=HERE, capture_output=True, text=True)
    row = dict(
        way=args.way, ap50=round(ap50(args.folder, found), 4), seconds_per_image=round(seconds, 2),
        peak_mb=round(peak), objects=len(found), scenes=args.scenes, width=args.size[0], height=args.size[1],
        scene_size=64, config=Path(args.config).name, threads=torch.get_num_threads(), torch=torch.__version__,
        python=platform.python_version(), commit=commit.stdout.strip(), **options,
    )  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    is_new = not args.out.exists()
    with args.out.open('a', newline='') as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator='\n')
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(row)


def main():
    args = parse_args()
    if args.way:
        measure(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(Path(folder), args)
        args.out.unlink(missing_ok=True)
        for way in ('whole', 'tiled'):
            command = [sys.executable, __file__, *sys.argv[1:], '--way', way, '--folder', folder]
            subprocess.run(command, check=True, env=dict(os.environ, PYTHONWARNINGS='ignore'))


if __name__ == '__main__':
    main()
