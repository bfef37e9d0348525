"""Early stopping that a resumed run goes on with."""

from mmengine.hooks import EarlyStoppingHook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """MMEngine's hook, whose count of validations without a better figure stands in checkpoints.

    Arguments are those of MMEngine's ``EarlyStoppingHook``.
    """

    def before_save_checkpoint(self, runner, checkpoint):
        """Write the count and the best figure down."""
        checkpoint['meta']['early_stopping'] = dict(wait_count=self.wait_count, best_score=float(self.best_score))

    def after_load_checkpoint(self, runner, checkpoint):
        """Take them up."""
        state = checkpoint.get('meta', {}).get('early_stopping')
        if state and runner._resume:
            self.wait_count, self.best_score = state['wait_count'], state['best_score']
