"""Time COCO's figures by both packages on equal detections; the packages take turns.

python benchmarks/coco_evaluation.py --scenes 1000 --out benchmarks/results/coco_evaluation.csv
"""

import argparse
import csv
import json
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path

PACKAGES = ('pycocotools', 'faster-coco-eval')


def detections_of(truth, per_object, rng):
    """Shift and confuse the truth."""
    import numpy as np
    from pycocotools import mask as mask_util

    found = []
    for annotation in truth['annotations']:
        mask = mask_util.decode(annotation['segmentation'])
        for _ in range(per_object):
            code = mask_util.encode(np.asfortranarray(np.roll(mask, rng.integers(-4, 5, 2), (0, 1))))
            found.append(
                dict(
                    image_id=annotation['image_id'],
                    category_id=annotation['category_id'] if rng.random() < 0.8 else int(rng.integers(1, 9)),
                    score=float(rng.random()),
                    segmentation=code,
                    bbox=mask_util.toBbox(code).tolist(),
                    area=float(mask_util.area(code)),
                )
            )
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--scenes', type=int, default=1000)
    parser.add_argument('--per-object', type=int, default=10)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--out', type=Path, required=True)
    measure(parser.parse_args())


def measure(args):
    """Time both packages, and write the rows."""
    import numpy as np

    from vik_mm.datasets.shapes import write_shapes
    from vik_mm.evaluation import average_precision

    with tempfile.TemporaryDirectory() as folder:
        root = write_shapes(Path(folder, 'shapes'), dict(val=args.scenes), ['coco'])
        truth = json.loads((root / 'coco/annotations/instances_val2017.json').read_text())
    found = detections_of(truth, args.per_object, np.random.default_rng(0))
    rows = []
    for kind in ('bbox', 'segm'):
        times, results = {name: [] for name in PACKAGES}, {}
        for _ in range(args.rounds):
            for name in PACKAGES:
                start = time.perf_counter()
                results[name] = average_precision(truth, found, kind, range(1, 9), package=name)
                times[name].append(time.perf_counter() - start)
        assert abs(results[PACKAGES[0]].precision - results[PACKAGES[1]].precision).max() < 1e-6
        for name in PACKAGES:
            rows.append(
                dict(
                    kind=kind,
                    package=name,
                    version=metadata.version(name),
                    images=args.scenes,
                    detections=len(found),
                    median_s=round(statistics.median(times[name]), 3),
                    fastest_s=round(min(times[name]), 3),
                    slowest_s=round(max(times[name]), 3),
                )
            )
            print(rows[-1])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with open(args.out, 'w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == '__main__':
    main()
