"""Loops, samplers and strategies, and what starts and resumes a run."""

from .launch import init_distributed
from .loops import ResumableEpochLoop, ResumableIterLoop, make_resumable
from .resume import make_work_dir, resolve_resume
from .schedules import fit_schedules
from .sharded_strategy import ShardedStrategy, check_sharding
from .stop_signal import TrainingStopped

__all__ = [
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'ShardedStrategy',
    'TrainingStopped',
    'check_sharding',
    'fit_schedules',
    'init_distributed',
    'make_resumable',
    'make_work_dir',
    'resolve_resume',
]
