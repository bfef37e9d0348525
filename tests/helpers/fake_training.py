"""Stands for tools/train.py in tests of what starts trainings: counts steps, logs, saves itself, goes on; no torch.

python fake_training.py WORK_DIR SEED [steps=6] [pause=0.01] [fail_at=3] [figure=accuracy/top1] [wait_at=3]

With wait_at, its first sitting waits there until it is told to stop.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main():
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    options = dict(argument.split('=', 1) for argument in sys.argv[3:])
    steps, pause = int(options.get('steps', 6)), float(options.get('pause', 0.01))
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    record, step, value = folder / 'last_checkpoint', 0, float(seed)
    if record.is_file():
        saved = json.loads((folder / Path(record.read_text()).name).read_text())
        step, value = saved['step'], saved['value']
    wait_at = int(options.get('wait_at', 0)) if step == 0 else 0
    sitting = folder / f'{time.time_ns()}' / 'vis_data'
    sitting.mkdir(parents=True)

    def log(**values):
        with (sitting / 'scalars.json').open('a') as file:
            file.write(json.dumps(values) + '\n')

    def save(name):
        (folder / name).write_text(json.dumps(dict(step=step, value=value)))
        record.write_text(str(folder / name))

    print('threads', os.environ['OMP_NUM_THREADS'], 'gpu', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)
    while step < steps:
        time.sleep(pause)
        if step + 1 == int(options.get('fail_at', -1)):
            sys.exit('error: the loss is not finite')
        step, value = step + 1, value * 1.5 + 1
        print(f'Epoch(train) [{step}][10/10]  lr: 1e-3  time: 0.0100  loss: {1 / step:.4f}', flush=True)
        log(loss=1 / step, epoch=step, iter=step * 10, step=step * 10)
        log(**{options.get('figure', 'accuracy/top1'): value, 'accuracy/top5': 100.0, 'time': 0.1, 'step': step})
        while step == wait_at and not told:
            time.sleep(0.01)
        if told:
            save('interrupted.pth')
            print(f'stopped after iteration {step}; carry on with --resume --work-dir {folder}', file=sys.stderr)
            return
        save(f'epoch_{step}.pth')


if __name__ == '__main__':
    main()
