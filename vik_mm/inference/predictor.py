"""From loaded pictures to what a model says about them, safe for several threads."""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS

from vik_mm.backbones import ViK
from vik_mm.backbones.arguments import MIN_IMAGE_SIZE
from vik_mm.config.machine import without_sync_bn

from .pipeline import TestPipeline


class Predictor:
    """Prepares pictures and computes a model on them.

    Pictures that the pipeline brings to one size are computed together, and others apart. So none is padded for the
    sake of another, and what it is batched with changes a prediction by rounding only.

    One thread prepares at a time and one computes: pipelines and models of the mm packages may keep things while they
    run.

    Args:
        model (nn.Module): Of MMPretrain, MMDetection or MMSegmentation, with its weights, in evaluation mode.
        dataset (Config): Config of the data set that says how images are read and prepared.
        device (torch.device): Where the model is.
        is_amp (bool): Whether to compute in mixed precision: float16 on GPUs, bfloat16 on CPUs. Defaults to False.
    """

    def __init__(self, model: Any, dataset: Config, device: torch.device, is_amp: bool = False):
        self.model, self.device, self.is_amp = model, device, is_amp
        has_vik = any(isinstance(part, ViK) for part in model.modules())
        self.pipeline = TestPipeline(dataset, MIN_IMAGE_SIZE if has_vik else 1)
        self._prepare_lock, self._compute_lock = threading.Lock(), threading.Lock()

    def __call__(self, pictures: Sequence[dict[str, Any]], names: Sequence[str]) -> list[Any]:
        """Predict on a batch.

        Args:
            pictures (Sequence[dict]): What :class:`TestPipeline` has loaded.
            names (Sequence[str]): Their names, for errors.

        Returns:
            list[BaseDataElement]: A data sample of the model's package for each.

        Raises:
            BadInputError: If a picture's sides do not suit the pipeline.
        """
        with self._prepare_lock:
            packed = [self.pipeline.prepare(picture, name) for picture, name in zip(pictures, names)]
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, data in enumerate(packed):
            groups.setdefault(tuple(data['inputs'].shape), []).append(number)
        samples: list[Any] = [None] * len(packed)
        dtype = torch.bfloat16 if self.device.type == 'cpu' else torch.float16
        for numbers in groups.values():
            batch = pseudo_collate([packed[number] for number in numbers])
            with self._compute_lock, torch.no_grad(), torch.autocast(self.device.type, dtype, enabled=self.is_amp):
                found = self.model.test_step(batch)
            for number, sample in zip(numbers, found):
                samples[number] = sample
        return samples


def build_model(cfg: Config) -> Any:
    """Build a config's model for weights that come from a checkpoint.

    Args:
        cfg (Config): Config of MMPretrain, MMDetection or MMSegmentation; its ``default_scope`` is in force.

    Returns:
        nn.Module: A model of an mm package, without synchronised batch norm and without pretrained weights.
    """
    model = without_sync_bn(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    if isinstance(model.get('backbone'), dict):
        model.backbone.init_cfg = None
    return MODELS.build(model)
