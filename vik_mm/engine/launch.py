"""From a config file and a command line to a config that fits this machine.

MMEngine's launchers expect a GPU. Where there is none, these functions make the process group themselves and take out
what needs one; each change is logged.
"""

import atexit
import gc
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed, is_main_process
from mmengine.logging import print_log

from vik_mm.compat.configs import resolve_config
from vik_mm.compat.sync_bn import without_sync_bn
from vik_mm.errors import BadInputError
from vik_mm.swap import swap_backbone

from .checkpoint import check_checkpoint_file, read_checkpoint
from .config_check import check_form, warn_of_unread_names
from .config_options import merge_options
from .safe_config import read_safe_config
from .work_dir import make_writable, newest_checkpoint, refuse_if_locked

# What Slurm calls the variables that torch.distributed reads.
_SLURM = {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'}


def load_config(
    path: str,
    options: dict | None = None,
    work_dir: str | None = None,
    backbone: str | None = None,
    is_safe: bool = False,
    is_amp: bool = False,
) -> Config:
    """Read a config file and put the command line's settings over it.

    Args:
        path (str): The config file, or ``package::path`` for one that ships with MMDetection, MMSegmentation or
            MMPretrain.
        options (dict, optional): Values of ``--cfg-options``. Defaults to None.
        work_dir (str, optional): Where logs and checkpoints go; None takes the config's, or
            ``work_dirs/<name of the config>``. Defaults to None.
        backbone (str, optional): What :func:`vik_mm.swap_backbone` puts into the config before ``options`` apply.
            Defaults to None.
        is_safe (bool): Whether to read only JSON and YAML, by :func:`read_safe_config`. Defaults to False.

        is_amp (bool): Whether training is to be in mixed precision, whose options may then be among ``options``.
            Defaults to False.

    Returns:
        Config: The config, with ``work_dir`` set.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a part of the config is no dict where one is needed, nothing reads one of the ``options``, the
            backbone cannot be swapped, or the config is not safe and has to be.
    """
    cfg = read_safe_config(path) if is_safe else Config.fromfile(resolve_config(path))
    if backbone:
        cfg = swap_backbone(cfg, backbone)
    warn_of_unread_names(cfg)
    if is_amp:
        check_form(cfg)
        cfg.optim_wrapper = {**(cfg.get('optim_wrapper') or {}), 'type': 'AmpOptimWrapper'}
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if options:
        merge_options(cfg, options)
    check_form(cfg)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        stem = Path(path).stem
        cfg.work_dir = str(Path('work_dirs', f'{stem}_{backbone}' if backbone else stem))
    if cfg.get('default_scope') == 'mmpretrain':
        # MMPretrain's own configs leave this to its tools; without it batches come as lists.
        for split in ('train', 'val', 'test'):
            if loader := cfg.get(f'{split}_dataloader'):
                loader.setdefault('collate_fn', dict(type='default_collate'))
    return cfg


def init_distributed(cfg: Config, launcher: str, local_rank: int = 0) -> None:
    """Prepare the config, and without a GPU the process group, for a launcher.

    Args:
        cfg (Config): Changed in place: ``launcher``, and on the CPU ``model_wrapper_cfg``.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        local_rank (int): The process's number on this machine, where the environment does not tell. Defaults to 0.

    Raises:
        ValueError: If the launcher's environment variables are missing.
    """
    cfg.launcher = launcher
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    if launcher == 'none' or torch.cuda.is_available() or is_distributed():
        return
    if launcher == 'slurm':
        for name, source in _SLURM.items():
            if source in os.environ:
                os.environ.setdefault(name, os.environ[source])
        os.environ.setdefault('MASTER_ADDR', os.environ.get('SLURM_LAUNCH_NODE_IPADDR', '127.0.0.1'))
        os.environ.setdefault('MASTER_PORT', '29500')
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if missing:
        raise ValueError(
            f'--launcher {launcher} needs {", ".join(missing)} in the environment; '
            'start through tools/dist_train.sh, tools/slurm_train.sh or torchrun'
        )
    torch.distributed.init_process_group('gloo')
    atexit.register(_end_gloo)
    # DDP on the CPU must be given no devices, and MMEngine gives it LOCAL_RANK.
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, **cfg.get('model_wrapper_cfg', {}), 'device_ids': None}
    print_log('no GPU: the processes talk through gloo', logger='current')


def _end_gloo() -> None:
    """Join gloo's threads while there is an interpreter.

    One of them may still hold the tensor of the last collective; where it lets go of it during the interpreter's end, a
    finished run aborts (SIGABRT). The threads are joined when the last reference to their group goes, and the wrapped
    model has one.
    """
    torch.distributed.destroy_process_group()
    gc.collect()


def add_sanity_checks(cfg: Config) -> None:
    """Add :class:`SanityCheckHook` and :class:`NonFiniteLossHook`, unless the config has them.

    Args:
        cfg (Config): Changed in place: ``custom_hooks``.
    """
    hooks = list(cfg.get('custom_hooks') or [])
    known = {hook.get('type') for hook in hooks}
    missing = [name for name in ('SanityCheckHook', 'NonFiniteLossHook') if name not in known]
    cfg.custom_hooks = [*hooks, *(dict(type=name) for name in missing)]


def fit_to_machine(cfg: Config) -> None:
    """Take out of a config what this machine cannot do, and log it.

    Args:
        cfg (Config): Changed in place. Without a GPU: float32 for mixed precision (but for
            ``dtype='bfloat16'``, which CPUs do), batch norm for synchronised batch norm, and no pinned memory.
            Everywhere: no ``persistent_workers`` where ``num_workers`` is 0.
    """
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        if not torch.cuda.is_available():
            loader.pin_memory = False
        if loader.get('num_workers', 0) == 0:
            loader.persistent_workers = False
    if torch.cuda.is_available():
        return
    model = without_sync_bn(cfg.get('model'))
    if model != cfg.get('model'):
        cfg.model = model
        print_log('no GPU: batch norm instead of synchronised batch norm', logger='current')
    if cfg.get('test_cfg') and cfg.test_cfg.pop('fp16', False):
        print_log('no GPU: testing in float32 instead of mixed precision', logger='current')
    wrapper = cfg.get('optim_wrapper')
    if wrapper and wrapper.get('type') == 'AmpOptimWrapper':
        dtype = wrapper.get('dtype')
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
        if dtype == 'bfloat16':
            wrapper.type = 'CpuAmpOptimWrapper'
        else:
            wrapper.type = 'OptimWrapper'
            print_log('no GPU: training in float32 instead of mixed precision in float16', logger='current')


def make_work_dir(cfg: Config) -> None:
    """Make the folder that logs and checkpoints go to.

    Args:
        cfg (Config): Its ``work_dir``.

    Raises:
        ValueError: If it cannot be made or not be written to, or another training writes into it.
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
        ValueError: If the file is truncated, damaged or no checkpoint; the message names the newest sound one beside
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
