"""Draw the built-in data set, train a small ViK on it, test the checkpoint, and draw predictions on test images."""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

from vik_mm_cli.errors import end_on_user_errors

CONFIG = 'configs/vik/vik-demo_shapes.py'
SCENES = dict(train=8000, val=500, test=1000)
DATA = 'data/shapes_demo'
ROOT = Path(__file__).resolve().parent.parent


def call(script: str, *args: str) -> None:
    """Run one of the tools with this interpreter, and end the demo if it fails."""
    # mmcv without compiled operators warns at import; nothing here needs them.
    env = dict(os.environ, PYTHONWARNINGS='ignore')
    code = subprocess.run([sys.executable, str(ROOT / 'tools' / script), *args], cwd=ROOT, env=env).returncode
    if code:
        sys.exit(code)


def draw_predictions(work_dir: Path, checkpoint: Path, count: int = 24) -> Path:
    """Classify some test images, chosen at random, with the saved checkpoint and draw them."""
    import mmcv
    from mmpretrain import ImageClassificationInferencer

    from vik_mm.visualization import draw_class_predictions

    files = random.Random(0).sample(sorted(ROOT.glob(f'{DATA}/imagenet/test/*/*.png')), count)
    inferencer = ImageClassificationInferencer(str(ROOT / CONFIG), pretrained=str(checkpoint), device='cpu')
    results = inferencer([str(file) for file in files], batch_size=count)
    return draw_class_predictions(
        work_dir / 'predictions.png',
        [mmcv.imread(str(file), channel_order='rgb') for file in files],
        truths=[file.parent.name for file in files],
        predictions=[result['pred_class'] for result in results],
        scores=[result['pred_score'] for result in results],
        title='ViK on test images of the built-in shapes',
    )


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', default='work_dirs/demo', help='where log, checkpoint and picture go')
    return parser.parse_args(argv)


def run(args):
    """Go through the four steps."""
    from rich.console import Console

    from vik_mm.datasets.shapes import write_shapes

    console = Console(highlight=False)
    work_dir = (ROOT / args.work_dir).resolve()

    console.rule('1/4  data')
    data = write_shapes(ROOT / DATA, SCENES, layouts=['imagenet'])
    console.print(f'{sum(SCENES.values())} scenes in {data}')
    console.rule('2/4  training')
    options = [f'{split}_dataloader.dataset.data_root={DATA}/imagenet' for split in SCENES]
    options = ['--work-dir', str(work_dir), '--cfg-options', 'randomness.seed=0', *options]
    call('train.py', CONFIG, *options)
    log = max(work_dir.glob('*/*.log'), key=lambda file: file.stat().st_mtime)
    checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
    console.rule('3/4  test of the saved checkpoint')
    call('test.py', CONFIG, str(checkpoint), *options)
    console.rule('4/4  predictions')
    picture = draw_predictions(work_dir, checkpoint)
    console.print(f'\nlog          {log}\ncheckpoint   {checkpoint}\npredictions  {picture}', soft_wrap=True)


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
