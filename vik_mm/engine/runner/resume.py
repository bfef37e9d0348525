"""What a training starts from: its folder, and the checkpoint that ``--resume`` means."""

from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from vik_mm.checkpoints.reading import check_checkpoint_file, read_checkpoint
from vik_mm.checkpoints.work_dir import make_writable, newest_checkpoint, refuse_if_locked
from vik_mm.errors import BadInputError


def make_work_dir(cfg: Config) -> None:
    """Make the folder that logs and checkpoints go to.

    Args:
        cfg (Config): Its ``work_dir``.

    Raises:
        BadInputError: If it cannot be made or not be written to, or another training writes into it.
    """
    make_writable(cfg.work_dir)
    refuse_if_locked(cfg.work_dir)


def resolve_resume(cfg: Config, resume: str | None) -> None:
    """Decide what ``--resume`` resumes from.

    Args:
        cfg (Config): Changed in place: ``resume`` and ``load_from``, and the seed where none is set.
        resume (str, optional): None for no ``--resume``, 'auto' for the newest sound checkpoint of ``cfg.work_dir``, or
            a checkpoint file. With 'auto' and no checkpoint at all, training starts fresh, and the log says so.

    Raises:
        FileNotFoundError: If the file does not exist.
        BadInputError: If the file is truncated, damaged or no checkpoint; the message names the newest sound one beside
            it. With 'auto', if there are checkpoints and none can be resumed from.
    """
    if resume is not None:
        cfg.resume, cfg.load_from = True, None if resume == 'auto' else resume
    if cfg.get('resume') and cfg.get('load_from') is None:
        found = newest_checkpoint(cfg.work_dir, _more_folders(cfg))
        cfg.load_from = None if found is None else str(found)
        if found is None:
            cfg.resume = False
            print_log(f'nothing to resume in {cfg.work_dir}: training starts fresh', logger='current')
    is_local = bool(cfg.get('load_from')) and '://' not in cfg.load_from
    if is_local:
        check_checkpoint_file(cfg.load_from)
    if not cfg.get('resume'):
        return
    if is_main_process():
        print_log(f'resuming from {cfg.load_from}', logger='current')
    if is_local:
        meta = _read_for_resuming(cfg.load_from).get('meta')
        if not isinstance(meta, dict) or not {'epoch', 'iter'} <= meta.keys():
            raise BadInputError(
                f'{cfg.load_from} holds weights only, and no state of a training to resume; to start from its weights, '
                f'leave --resume out and use --cfg-options load_from={cfg.load_from}'
            )
        if (cfg.get('randomness') or {}).get('seed') is None:
            # MMEngine reads the run's seed too late: samplers have been built with another by then.
            cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': meta.get('seed')}


def _read_for_resuming(path: str) -> dict:
    try:
        return read_checkpoint(path)
    except BadInputError as error:
        try:
            other = newest_checkpoint(Path(path).parent)
        except (BadInputError, FileNotFoundError):
            other = None
        if other is None:
            raise
        raise BadInputError(f'{error}; the newest sound checkpoint beside it is {other}') from error


def _more_folders(cfg: Config) -> list[Path]:
    """Say where checkpoints go besides the work dir, as MMEngine's hook names it."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    folder = hook.get('out_dir')
    return [] if not folder or '://' in folder else [Path(folder, Path(cfg.work_dir).name)]
