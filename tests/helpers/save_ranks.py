"""A hook for runs over several processes: every rank saves its own weights at the end."""

from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class SaveRanks(Hook):
    def after_train(self, runner):
        torch.save(runner.model.module.state_dict(), Path(runner.work_dir) / f'rank_{get_rank()}.pth')
