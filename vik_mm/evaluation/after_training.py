"""What is done once when a training has come to its end: its best checkpoint gets a fixed name, and is evaluated."""

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook

from vik_mm.errors import BadInputError
from vik_mm_cli.files import link_atomically

from .report_data import Evaluation
from .running import evaluate

BEST = 'best.pth'


def evaluate_training(cfg: Config, runner: Any, num_pictures: int = 12) -> Evaluation | None:
    """Evaluate the best checkpoint of a training on the validation split, or the last one where none is called best.

    The best checkpoint also gets the name ``best.pth``, beside its own.

    Args:
        cfg (Config): What the training was built from; it stays as it is.
        runner (Runner): The training, at its end.
        num_pictures (int): Worst images to keep. Defaults to 12.

    Returns:
        Evaluation | None: The figures; None on all but the main process.

    Raises:
        BadInputError: If the training has written no checkpoint of one file, or its predictions cannot be evaluated.
    """
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    best = _best_of(hook)
    checkpoint = best or (hook and hook.last_ckpt)
    if not checkpoint or not Path(checkpoint).is_file():
        raise BadInputError(
            f'{cfg.work_dir} has no checkpoint in one file to evaluate'
            + (f'; {checkpoint} is of a sharded training' if checkpoint else '')
        )
    if best is not None:
        checkpoint = str(Path(checkpoint).with_name(BEST))
        if is_main_process():
            link_atomically(best, checkpoint)
        barrier()  # all processes read it
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(folder_of_report(cfg))
    # Two runs of one second would share a log.
    cfg.experiment_name = f'{runner.experiment_name}_report'
    if cfg.get('visualizer'):
        # A second run at a service of figures would be for nothing.
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    options: dict[str, Any] = dict(is_compiled=bool(cfg.get('compile')), launcher=cfg.get('launcher', 'none'))
    return evaluate(cfg, checkpoint, 'val', num_pictures=num_pictures, **options)


def folder_of_report(cfg: Config) -> Path:
    """Tell where all that belongs to the report on a training goes.

    Args:
        cfg (Config): What the training was built from.

    Returns:
        Path: A folder in the work dir.
    """
    return Path(cfg.work_dir, 'report_val')


def _best_of(hook: CheckpointHook | None) -> str | None:
    if hook is None or not hook.save_best:
        return None
    if len(hook.key_indicators) > 1:  # the first is the main one
        return hook.best_ckpt_path_dict.get(hook.key_indicators[0])
    return hook.best_ckpt_path
