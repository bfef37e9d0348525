"""What MMEngine's checkpoints hold beside tensors.

``Runner`` stores its message hub: ``HistoryBuffer`` objects around NumPy arrays, with references to their own
methods. Since torch 2.6 ``torch.load`` refuses them, OpenMMLab's MMEngine does not tell it otherwise, and none of its
runs can be resumed. (OneDL's MMEngine has a list of its own.)
"""

import pickle

import numpy as np
from mmengine.logging import HistoryBuffer


def _history_method(owner, name):
    """Stand in for ``getattr`` while unpickling: methods of ``HistoryBuffer`` are found, nothing else is."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) in a checkpoint')
    return getattr(owner, name)


# torch goes by these names when it looks up what a file asks for.
_history_method.__module__, _history_method.__name__, _history_method.__qualname__ = 'builtins', 'getattr', 'getattr'


def runner_classes() -> list:
    """List the classes and functions, all of them harmless, that a Runner's checkpoint is made of."""
    core = np._core if hasattr(np, '_core') else np.core
    kinds = ('bool', 'float32', 'float64', 'int32', 'int64', 'uint32', 'uint64')
    number_types = [type(np.dtype(kind)) for kind in kinds]
    arrays = [np.ndarray, np.dtype, core.multiarray._reconstruct, core.multiarray.scalar]
    return [HistoryBuffer, _history_method, *arrays, *number_types]
