"""Draw what Mask R-CNN with a small ViK finds in the built-in shapes, below the truth.

python tools/data/make_shapes.py data/shapes
python tools/train.py configs/detection/mask-rcnn_vik-demo_fpn_shapes.py --cfg-options randomness.seed=0
python docs/pictures/draw_shapes.py work_dirs/mask-rcnn_vik-demo_fpn_shapes/epoch_4.pth
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pycocotools import mask as rle

from vik_mm.config import load_config
from vik_mm.datasets.shapes import CLASSES
from vik_mm.inference import Model

CONFIG = 'configs/detection/mask-rcnn_vik-demo_fpn_shapes.py'
# Tableau's colours: each is told from the others, on light and on dark scenes.
COLORS = ('#4e79a7', '#f28e2b', '#e15759', '#76b7b2', '#59a14f', '#edc948', '#b07aa1', '#ff9da7')
SCENES = 6  # the first of the test set, whatever they are
LEAST_SCORE = 0.5
SCALE = 6  # pixels of the drawing for a pixel of a scene


def truth_of(path: Path) -> tuple[list[str], list[list[dict]]]:
    """Files of a COCO file's first images, and their objects."""
    content = json.loads(path.read_text())
    images = content['images'][:SCENES]
    names = {category['id']: category['name'] for category in content['categories']}
    objects = {image['id']: [] for image in images}
    for annotation in content['annotations']:
        if annotation['image_id'] in objects:
            found = dict(name=names[annotation['category_id']], mask=rle.decode(annotation['segmentation']))
            objects[annotation['image_id']].append(found)
    return [image['file_name'] for image in images], list(objects.values())


def predicted(model: Model, path: Path) -> list[dict]:
    """Objects that a model finds, the surest last."""
    (result,) = model.predict(path, score_thr=LEAST_SCORE)
    found = [dict(name=n, score=s, mask=m) for n, s, m in zip(result.class_names, result.scores, result.masks)]
    return sorted(found, key=lambda entry: entry['score'])


def draw_objects(axis, picture: np.ndarray, objects: list[dict]) -> None:
    """Draw masks and names of objects into a picture."""
    side = picture.shape[0] * SCALE
    axis.imshow(cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST))
    for entry in objects:
        color = COLORS[CLASSES.index(entry['name'])]
        mask = cv2.resize(entry['mask'].astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
        rgb = tuple(int(color[k : k + 2], 16) / 255 for k in (1, 3, 5))
        axis.imshow(np.dstack([np.broadcast_to(rgb, (side, side, 3)), 0.45 * (mask > 0.5)]))
        axis.contour(mask, [0.5], colors=[color], linewidths=1.6)
    for entry in objects:
        rows, columns = np.nonzero(entry['mask'])
        if len(rows):
            box = dict(facecolor=COLORS[CLASSES.index(entry['name'])], edgecolor='none', pad=1.2)
            x, y = columns.mean() * SCALE, rows.mean() * SCALE
            axis.text(x, y, entry['name'], color='white', fontsize=7.5, ha='center', va='center', bbox=box)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint')
    parser.add_argument('--config', default=CONFIG)
    parser.add_argument('--data', default='data/shapes/coco', type=Path)
    parser.add_argument('--out', default=Path(__file__).with_name('shapes.jpg'), type=Path)
    return parser.parse_args()


def main() -> None:
    """Draw the picture."""
    args = parse_args()
    model = Model(load_config(args.config), args.checkpoint, device='cpu')
    files, truths = truth_of(args.data / 'annotations/instances_test2017.json')
    paths = [args.data / 'test2017' / file for file in files]

    figure = Figure(figsize=(10.4, 3.55), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, SCENES)
    for column, (path, truth) in enumerate(zip(paths, truths)):
        picture = cv2.imread(str(path))[..., ::-1]
        draw_objects(axes[0, column], picture, truth)
        draw_objects(axes[1, column], picture, predicted(model, path))
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    axes[0, 0].set_ylabel('truth')
    axes[1, 0].set_ylabel('prediction')

    figure.savefig(args.out, dpi=120, pil_kwargs=dict(quality=88))


if __name__ == '__main__':
    main()
