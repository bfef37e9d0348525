"""Training whose parameters, gradients and optimizer state are divided among the processes (FSDP)."""

import inspect
import logging
from collections.abc import Sequence

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS, STRATEGIES, Registry
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from vik_mm.errors import BadInputError


def check_sharding(cfg: Config) -> None:
    """Refuse what cannot be had of a divided model.

    Args:
        cfg (Config): The config, as it goes to the Runner.

    Raises:
        BadInputError: If an ``EMAHook`` would copy a model that no process has whole, or the backbone computes images
            of unlike sizes one after the other: processes with other numbers of sizes would wait for each other for
            ever.
    """
    kind, scope = (cfg.get('strategy') or {}).get('type'), cfg.get('default_scope')
    if not _is_a(kind, FSDPStrategy, STRATEGIES, scope):
        return
    if any(_is_a(hook.get('type'), EMAHook, HOOKS, scope) for hook in cfg.get('custom_hooks') or []):
        raise BadInputError(
            f'EMAHook copies the model, which {kind} divides among the processes; take it out of custom_hooks, or '
            "train without 'strategy'"
        )
    if ((cfg.get('model') or {}).get('backbone') or {}).get('ignore_padding'):
        raise BadInputError(
            f'model.backbone.ignore_padding=True runs the backbone once for each image size of a batch, and {kind} '
            "needs the same number of runs in every process; set ignore_padding=False, or train without 'strategy'"
        )


def _is_a(kind, parent: type, registry: Registry, scope: str | None) -> bool:
    """Tell whether a type of a config, a name or a class, is of a kind."""
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(scope) as current:
            kind = current.get(kind)
    return inspect.isclass(kind) and issubclass(kind, parent)


def find_block_classes(model: nn.Module, names: Sequence[str] | None = None) -> set[type[nn.Module]]:
    """Find the classes of a model's blocks, which are gathered one at a time when the model is divided.

    A block must compute with its own parameters only, and all of them: ViK's reads the weights of its parts directly,
    so nothing smaller can be divided.

    Args:
        model (nn.Module): The model.
        names (Sequence[str], optional): Classes by module and name, as in
            ``'mmpretrain.models.backbones.poolformer.PoolFormerBlock'``. None takes those that parts of the model,
            such as ``ViK``, list as ``block_classes``. Defaults to None.

    Returns:
        set[type[nn.Module]]: The classes.

    Raises:
        BadInputError: If no module of the model is of a class that is named.
    """
    if names is None:
        return {each for module in model.modules() for each in getattr(module, 'block_classes', ())}
    there = {f'{type(module).__module__}.{type(module).__qualname__}': type(module) for module in model.modules()}
    for name in names:
        if name not in there:
            same = [each for each in there if each.rpartition('.')[2] == str(name).rpartition('.')[2]]
            raise BadInputError(
                f'strategy.block_classes: no part of the model is a {name}; '
                f'{f"did you mean {same[0]}?" if same else f"its parts are {sorted(there)}"}'
            )
    return {there[name] for name in names}


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """MMEngine's strategy, with the parameter groups and checkpoints of training in one piece, on GPUs and on CPUs.

    A divided parameter has one dimension whatever its shape was, so rules that look at dimensions, such as
    ``flat_decay_mult``, would take weight decay from all of them; ``get_layer_depth`` would not find its names. Here
    the groups are made before the model is divided. With ``state_dict_cfg='full'`` a run can be resumed as one of DDP,
    and the other way round.

    Args:
        block_classes (Sequence[str], optional): What is gathered at a time, see :func:`find_block_classes`; an
            ``auto_wrap_policy`` in ``model_wrapper`` takes precedence. Defaults to None.
        **kwargs: Arguments of MMEngine's ``FSDPStrategy``.

    Raises:
        BadInputError: When the model is divided, if it has no such blocks, or parameters would be joined.
    """

    model_wrapper: dict | None

    def __init__(self, *, block_classes: Sequence[str] | None = None, **kwargs):
        super().__init__(**kwargs)
        self.block_classes = block_classes

    def prepare(self, model, *, optim_wrapper=None, **kwargs):
        """Build model and optimizer; see MMEngine's ``BaseStrategy.prepare``."""
        self._optim_wrapper = optim_wrapper
        return super().prepare(model, optim_wrapper=optim_wrapper, **kwargs)

    def _wrap_model(self, model):
        if isinstance(self._optim_wrapper, dict):
            self._optim_wrapper = super().build_optim_wrapper(self._optim_wrapper, model)
        wrapper = self.model_wrapper = dict(self.model_wrapper or dict(type='MMFullyShardedDataParallel'))
        if not wrapper.get('use_orig_params', True):
            raise BadInputError('use_orig_params=False in strategy.model_wrapper would join weights of unlike settings')
        if wrapper.get('auto_wrap_policy') is None:
            if blocks := find_block_classes(model, self.block_classes):
                wrapper['auto_wrap_policy'] = ModuleWrapPolicy(blocks)
            else:
                print_log(
                    'the model names no blocks, and each process gathers all of it at once, which saves no memory '
                    'in forward and backward; name them in strategy.block_classes',
                    logger='current',
                    level=logging.WARNING,
                )
        if not torch.cuda.is_available():
            wrapper['device_id'] = torch.device('cpu')
            # From CPU to CPU no copy would be made, and the next gathering overwrites what this one found.
            self.state_dict_config.offload_to_cpu = self.optim_state_dict_config.offload_to_cpu = False
        return super()._wrap_model(model)

    def build_optim_wrapper(self, optim_wrapper, model=None):
        """Take the groups that were made before the model was divided; their parameters are the same objects still."""
        return self._optim_wrapper

    def optim_state_dict(self):
        """Gather the optimizer's state; where it is whole, numbered as optimizers number it."""
        state = FSDP.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        if not self._is_full_state_dict() or not is_main_process():
            return state
        return _rename(state, {name: number for number, name in enumerate(self._names())})

    def load_optim_state_dict(self, state_dict):
        """Divide an optimizer's state; MMEngine hands PyTorch its arguments in the order of PyTorch 2.0."""
        if self._is_full_state_dict():
            state_dict = _rename(state_dict, dict(enumerate(self._names())))
        state = FSDP.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(state)

    def _names(self) -> list[str]:
        groups = self.optim_wrapper.optimizer.param_groups
        return [self.id_to_name[id(parameter)] for group in groups for parameter in group['params']]


def _rename(state: dict, names: dict) -> dict:
    """Give the parameters of an optimizer's state other names."""
    return dict(
        state={names[old]: value for old, value in state['state'].items()},
        param_groups=[{**group, 'params': [names[old] for old in group['params']]} for group in state['param_groups']],
    )
