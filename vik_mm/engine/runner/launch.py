"""Process groups; on machines without a GPU, where MMEngine makes none, they are made here."""

import atexit
import gc
import os

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed
from mmengine.logging import print_log

from vik_mm.errors import BadInputError

# What Slurm calls the variables that torch.distributed reads.
_SLURM = {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS'}


def init_distributed(cfg: Config, launcher: str, local_rank: int = 0) -> None:
    """Prepare the config, and without a GPU the process group, for a launcher.

    Args:
        cfg (Config): Changed in place: ``launcher``, and on the CPU ``model_wrapper_cfg``.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        local_rank (int): The process's number on this machine, where the environment does not tell. Defaults to 0.

    Raises:
        BadInputError: If the launcher's environment variables are missing.
    """
    cfg.launcher = launcher
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    if launcher == 'none' or torch.cuda.is_available():
        return
    if not is_distributed():
        _join_gloo(launcher)
    # DDP on the CPU must be given no devices, and MMEngine gives it LOCAL_RANK.
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, **cfg.get('model_wrapper_cfg', {}), 'device_ids': None}


def _join_gloo(launcher: str) -> None:
    if launcher == 'slurm':
        for name, source in _SLURM.items():
            if source in os.environ:
                os.environ.setdefault(name, os.environ[source])
        os.environ.setdefault('MASTER_ADDR', os.environ.get('SLURM_LAUNCH_NODE_IPADDR', '127.0.0.1'))
        os.environ.setdefault('MASTER_PORT', '29500')
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if missing:
        raise BadInputError(
            f'--launcher {launcher} needs {", ".join(missing)} in the environment; '
            'start through tools/dist_train.sh, tools/slurm_train.sh or torchrun'
        )
    torch.distributed.init_process_group('gloo')
    atexit.register(_end_gloo)
    print_log('no GPU: the processes talk through gloo', logger='current')


def _end_gloo() -> None:
    """Join gloo's threads while there is an interpreter.

    One of them may still hold the tensor of the last collective; where it lets go of it during the interpreter's end, a
    finished run aborts (SIGABRT). The threads are joined when the last reference to their group goes, and the wrapped
    model has one.
    """
    torch.distributed.destroy_process_group()
    gc.collect()
