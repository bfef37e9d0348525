"""Loops, samplers and strategies, and what starts and resumes a run."""

from .completion import complete_config
from .launch import init_distributed
from .loops import ResumableEpochLoop, ResumableIterLoop
from .resume import make_work_dir, resolve_resume
from .sharded_strategy import ShardedStrategy, check_sharding
from .stop_signal import TrainingStopped

__all__ = [
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'ShardedStrategy',
    'TrainingStopped',
    'check_sharding',
    'complete_config',
    'init_distributed',
    'make_work_dir',
    'resolve_resume',
]
