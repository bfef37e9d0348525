"""CIFAR-10 in part."""

from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS


@DATASETS.register_module()
class CIFAR10Subset(CIFAR10):
    """Part of CIFAR-10 in the official file layout.

    MMPretrain's class insists on the md5 sums of the official files, which those of a subset cannot have; this one
    takes ``cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}`` as they are, and downloads nothing.

    Args:
        data_root (str): The folder that holds ``cifar-10-batches-py``.
        split (str): 'train' or 'test'. Defaults to 'train'.
        **kwargs: Those of ``mmpretrain.datasets.CIFAR10``, without ``download``.
    """

    train_list = [[name, None] for name, _ in CIFAR10.train_list]
    test_list = [[name, None] for name, _ in CIFAR10.test_list]
    meta = {**CIFAR10.meta, 'md5': None}

    def __init__(self, data_root: str, split: str = 'train', **kwargs):
        super().__init__(data_root=data_root, split=split, download=False, **kwargs)
