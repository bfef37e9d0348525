"""Draws predictions with the visualizers of the mm packages."""

import threading
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.visualization.vis_backend import BaseVisBackend

from .results import Result

_DEFAULTS = {
    'mmpretrain': 'UniversalVisualizer',
    'mmdet': 'DetLocalVisualizer',
    'mmseg': 'SegLocalVisualizer',
}
# Matplotlib, with which they draw, keeps things for the whole process.
_lock = threading.Lock()


class Artist:
    """Draws results of one model.

    Args:
        cfg (Config): The model's; its ``visualizer`` is taken, or the one of its package.
        dataset_meta (dict): Names and colours of the classes.
    """

    def __init__(self, cfg: Config, dataset_meta: dict[str, Any]):
        self._drawn = _LastPicture()
        scope = cfg.default_scope
        given = {'type': _DEFAULTS[scope], **(cfg.get('visualizer') or {})}
        # Visualizers are kept by name; each artist needs one of its own.
        given |= dict(name=f'artist_{id(self)}', vis_backends=[self._drawn], _scope_=scope)
        self._visualizer: Any = VISUALIZERS.build(given)
        self._visualizer.dataset_meta = dataset_meta
        self._classes = dataset_meta.get('classes')

    def draw(self, picture: np.ndarray, result: Result) -> np.ndarray:
        """Draw a result.

        Args:
            picture (np.ndarray): What the pipeline has loaded: ``[H, W]`` or ``[H, W, C]``, in the order of a file.
            result (Result): The prediction on it.

        Returns:
            np.ndarray: ``[H, W, 3]``, uint8, RGB.
        """
        canvas = np.ascontiguousarray(_as_bgr(picture)[..., ::-1])
        with _lock:
            getattr(self, f'_{result.task}')(canvas, result)
            return self._drawn.picture

    def _classification(self, canvas: np.ndarray, result: Result) -> None:
        from mmpretrain.structures import DataSample

        sample = DataSample()
        sample.set_pred_score(torch.from_numpy(result.probabilities))
        sample.set_pred_label(torch.from_numpy(result.labels))
        self._visualizer.visualize_cls(canvas, sample, classes=self._classes, draw_gt=False, show=False)

    def _detection(self, canvas: np.ndarray, result: Result) -> None:
        found = InstanceData(
            bboxes=torch.from_numpy(result.boxes),
            scores=torch.from_numpy(result.scores),
            labels=torch.from_numpy(result.labels),
        )
        if result.mask_codes is not None:
            found.masks = torch.from_numpy(result.masks)
        self._visualizer.add_datasample(
            '', canvas, BaseDataElement(pred_instances=found), draw_gt=False, show=False, pred_score_thr=-1.0
        )

    def _segmentation(self, canvas: np.ndarray, result: Result) -> None:
        assert result.segmentation is not None
        # As an array: a mask of one pixel that is a tensor would be taken for an index.
        labels = PixelData(data=result.segmentation[None].astype(np.int64))
        self._visualizer.add_datasample(
            '', canvas, BaseDataElement(pred_sem_seg=labels), draw_gt=False, show=False, with_labels=True
        )


class _LastPicture(BaseVisBackend):
    """Where a visualizer leaves what it has drawn."""

    def __init__(self):
        self.picture = np.empty((0, 0, 3), np.uint8)

    @property
    def experiment(self):
        return self

    def _init_env(self):
        pass

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **_) -> None:
        self.picture = image


def _as_bgr(picture: np.ndarray) -> np.ndarray:
    """Three channels of 8 bits, of whatever a pipeline loads."""
    if picture.dtype == np.uint16:
        picture = picture // 257
    if picture.ndim == 2:
        picture = picture[..., None]
    picture = picture[..., :3] if picture.shape[-1] >= 3 else picture[..., :1].repeat(3, axis=-1)
    return picture.clip(0, 255).astype(np.uint8)
