"""Tests a model in windows of large pictures, with the metrics of the config."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import TestLoop, autocast
from mmengine.structures import InstanceData, PixelData

from vik_mm.deploy import task_of
from vik_mm.errors import BadInputError

from .predictor import Predictor
from .tiles import check_tiles
from .tiling import check_task, predict_content


@LOOPS.register_module()
class TiledTestLoop(TestLoop):
    """A test in which each picture is read again, at its own resolution, and predicted on in windows.

    In a config: ``test_cfg = dict(type='TiledTestLoop', tile=640)``. The data set gives the pictures' files and truth.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Of the test data.
        evaluator (Evaluator | dict | list): The metrics.
        tile (int): Side of the windows, in pixels of the picture.
        overlap (float): Share of a window's side that the next window sees too. Defaults to 0.2.
        tile_batch_size (int): Windows that are computed together. Defaults to 1.
        fp16 (bool): Whether to compute in mixed precision. Defaults to False.

    Raises:
        BadInputError: If ``tile`` or ``overlap`` is wrong, or the model is a classifier.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        tile: int,
        overlap: float = 0.2,
        tile_batch_size: int = 1,
        fp16: bool = False,
    ):
        check_tiles(tile, overlap)
        super().__init__(runner, dataloader, evaluator, fp16)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.task = task_of(model)
        check_task(self.task)
        self.tile, self.overlap, self.tile_batch_size = tile, overlap, tile_batch_size
        device = next(model.parameters()).device
        self._predictor = Predictor(model, runner.cfg.test_dataloader.dataset, device)

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict[str, Sequence[Any]]) -> None:
        """Predict on the pictures of a batch, and hand the predictions to the metrics."""
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            outputs = [self._predict(sample) for sample in data_batch['data_samples']]
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook('after_test_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)

    def _predict(self, sample: Any) -> Any:
        path = sample.metainfo.get('img_path')
        if not path:
            raise BadInputError(
                "tiles need the pictures' files: add 'img_path' to meta_keys of the last step of the test pipeline"
            )
        picture = self._predictor.pipeline.read(path)
        content = predict_content(
            self._predictor, self.task, picture, path, self.tile, self.overlap, self.tile_batch_size
        )
        if self.task == 'segmentation':
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(content['segmentation'].astype('int64'))[None])
            return sample
        found = InstanceData(
            bboxes=torch.from_numpy(content['boxes']),
            scores=torch.from_numpy(content['scores']),
            labels=torch.from_numpy(content['labels']),
        )
        if content.get('mask_codes') is not None:
            found.masks = content['mask_codes']  # run lengths, which COCO's metric takes
        sample.pred_instances = found
        return sample
