"""What this project puts in the place of functions, settings and methods of other packages, one function for each."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor
from torch.fx.experimental import _config as symbolic_shapes


def keep_equal_sizes_apart() -> None:
    """Have ``torch.compile`` of this process not take sizes for one that are equal in the first batch.

    They would have to be equal in every other batch.
    """
    symbolic_shapes.use_duck_shape = False


def keep_graphs_whole() -> None:
    """Have ``torch.compile`` of this process not cut graphs where DistributedDataParallel's buckets of gradients end.

    A graph with sizes as variables cannot be cut where a number crosses the cut: PyTorch's issue 196227.
    """
    import torch._dynamo  # takes seconds, and only compiled runs need it

    torch._dynamo.config.optimize_ddp = False


def write_local_files_with(backend: type[BaseStorageBackend]) -> None:
    """Have MMEngine write what goes to local files through a backend.

    Args:
        backend (type[BaseStorageBackend]): Replaces ``LocalBackend``.
    """
    register_backend('local', backend, force=True, prefixes='')


def read_checkpoints_with(read: Callable[..., dict[str, Any]], classes: Iterable[Any]) -> None:
    """Have MMEngine read local checkpoints with a function, and PyTorch read others as data.

    PyTorch's own switch holds ``torch.load`` to ``weights_only=True``, against OneDL's MMEngine as well, which would
    try again without.

    Args:
        read (Callable): Takes the file and ``map_location``. MMEngine's log takes the name of the place from its name.
        classes (Iterable): What ``torch.load`` may make besides tensors and plain values.
    """
    torch.serialization.add_safe_globals(list(classes))
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    CheckpointLoader.register_scheme(prefixes='', loader=read, force=True)


def fetch_batches_with(dataset: Any, fetch: Callable[..., list[Any]]) -> None:
    """Have PyTorch's data loaders take the samples of a batch from a function.

    Args:
        dataset (Dataset): Changed in place.
        fetch (Callable): Takes the indices of a batch; returns its samples.
    """
    dataset.__getitems__ = fetch


def answer_with(model: Any, task: str, run: Callable[[Tensor], list[Tensor]], lengths: Sequence[int]) -> None:
    """Have a model's network be a function; boxes, classes and label maps are made of its outputs as ever.

    Args:
        model (nn.Module): A model of MMPretrain, MMDetection or MMSegmentation; changed in place.
        task (str): 'classification', 'detection' or 'segmentation'.
        run (Callable): Maps a batch ``[B, 3, H, W]`` to the outputs of the network.
        lengths (Sequence[int]): Of a detector, the levels of each output.
    """
    if task == 'classification':
        model.extract_feat = lambda inputs, *_, **__: run(inputs)[0]
        model.head.forward = lambda logits: logits
    elif task == 'segmentation':
        model.encode_decode = lambda inputs, batch_img_metas: run(inputs)[0]
    else:

        def levels(outs):
            outs = iter(outs)
            return tuple([next(outs) for _ in range(length)] for length in lengths)

        model.extract_feat = run
        model.bbox_head.forward = levels
