"""A trained model of any task on single images."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, VISUALIZERS, init_default_scope

from vik_mm.compat.sync_bn import without_sync_bn
from vik_mm.engine import load_weights, read_checkpoint, unwrap_state_dict
from vik_mm.errors import BadInputError
from vik_mm.export import exported_format, run_exported

_TASKS = {'mmpretrain': 'classification', 'mmdet': 'detection', 'mmseg': 'segmentation'}
_NO_IMAGE_STEPS = ('LoadAnnotations', 'LoadPanopticAnnotations')


class Predictor:
    """Runs a model on images, with the pipeline that its config tests with.

    Args:
        cfg (Config): Config of MMPretrain, MMDetection or MMSegmentation, told by its ``default_scope``.
        checkpoint (str | PathLike): Weights; all must fit. Read as data, never as code. Or a file of
            :func:`vik_mm.export.export`, which runs on the CPU.
        device (str, optional): None takes a GPU where there is one. Defaults to None.

    Raises:
        ValueError: If the config belongs to none of the three packages, or the weights do not fit.
        FileNotFoundError: If there is no such checkpoint.
    """

    def __init__(self, cfg: Config, checkpoint: str | os.PathLike, device: str | None = None):
        scope = cfg.get('default_scope')
        if scope not in _TASKS:
            raise ValueError(f'default_scope={scope!r} of the config must be one of {sorted(_TASKS)}')
        self.task = _TASKS[scope]
        init_default_scope(scope)
        is_exported = exported_format(checkpoint) is not None
        has_gpu = torch.cuda.is_available() and not is_exported
        self.device = torch.device(device or ('cuda' if has_gpu else 'cpu'))
        content = {} if is_exported else read_checkpoint(checkpoint)

        self.model = build_model(cfg)
        if is_exported:
            classes = run_exported(self.model, checkpoint)['classes']
            content = dict(meta=dict(dataset_meta=dict(classes=classes))) if classes else {}
        else:
            try:
                load_weights(self.model, unwrap_state_dict(content, prefer_ema=False)[0])
            except BadInputError as error:
                raise BadInputError(f'{checkpoint} does not fit the config: {error}') from error
        self.dataset_meta = self._meta(cfg, content)
        self.model.to(self.device).eval()

        steps = [step for step in _leaf(cfg.test_dataloader.dataset).pipeline if step['type'] not in _NO_IMAGE_STEPS]
        self.pipeline = Compose(steps)
        # Visualizers are kept by name; each predictor needs one of its own.
        self._visualizer_cfg = dict(cfg.get('visualizer') or {}, vis_backends=None, name=f'predictor_{id(self)}')
        self._visualizer = None

    def __call__(self, image: str | os.PathLike) -> tuple[dict[str, Any], Any]:
        """Predict on an image file.

        Args:
            image (str | PathLike): The file.

        Returns:
            tuple[dict, BaseDataElement]: What goes into a JSON file, and the data sample of the model's package. The
            dict has ``image``, ``task``, and for classification ``label``, ``class``, ``score`` and ``top`` (the best
            five); for detection ``objects`` with ``label``, ``class``, ``score``, ``box`` (x1, y1, x2, y2 in pixels)
            and, where there are masks, ``mask`` (COCO's run-length code); for segmentation ``shares``, the share of
            the picture that each class found takes.

        Raises:
            BadInputError: If the file is no image.
        """
        try:
            data = self.pipeline(dict(img_path=str(image), img_id=0))
        except Exception as error:
            raise BadInputError(f'{image} cannot be read as an image ({" ".join(str(error).split())})') from error
        with torch.no_grad():
            (sample,) = self.model.test_step(pseudo_collate([data]))
        result = dict(image=str(image), task=self.task)
        result.update(getattr(self, f'_{self.task}')(sample))
        return result, sample

    def draw(self, image: str | os.PathLike, sample, path: str | os.PathLike, score_thr: float = 0.3) -> None:
        """Draw a prediction into its picture, with the visualizer of the model's package.

        Args:
            image (str | PathLike): The image file.
            sample (BaseDataElement): What a call returned.
            path (str | PathLike): Picture to write.
            score_thr (float): Objects of a lower score are left out. Defaults to 0.3.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._visualizer is None:
            self._visualizer = VISUALIZERS.build(self._visualizer_cfg)
            self._visualizer.dataset_meta = self.dataset_meta
        picture = cv2.cvtColor(cv2.imread(str(image), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        common = dict(draw_gt=False, show=False, out_file=str(path))
        if self.task == 'classification':
            self._visualizer.visualize_cls(
                picture, sample, classes=self.dataset_meta.get('classes'), draw_gt=False, out_file=str(path)
            )
        elif self.task == 'detection':
            self._visualizer.add_datasample(path.name, picture, sample.cpu(), pred_score_thr=score_thr, **common)
        else:
            self._visualizer.add_datasample(path.name, picture, sample.cpu(), with_labels=True, **common)

    def save_label_map(self, sample, path: str | os.PathLike) -> None:
        """Write a segmentation's labels as a picture of one channel, pixel values as in the annotations of the task.

        Args:
            sample (SegDataSample): What a call returned.
            path (str | PathLike): PNG file to write.
        """
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), labels.astype(np.uint8 if labels.max() < 256 else np.uint16)):
            raise OSError(f'{path} could not be written')

    def _name(self, label: int) -> str:
        classes = self.dataset_meta.get('classes')
        return str(classes[label]) if classes and label < len(classes) else str(label)

    def _classification(self, sample) -> dict[str, Any]:
        scores = sample.pred_score.cpu()
        best = scores.topk(min(5, len(scores)))
        top = [
            dict(label=label, score=round(score, 6)) | {'class': self._name(label)}
            for label, score in zip(best.indices.tolist(), best.values.tolist())
        ]
        return dict(top[0], top=top)

    def _detection(self, sample) -> dict[str, Any]:
        found = sample.pred_instances.cpu()
        objects = []
        for k in range(len(found)):
            label = int(found.labels[k])
            entry = dict(label=label, score=round(float(found.scores[k]), 6)) | {'class': self._name(label)}
            entry['box'] = [round(v, 2) for v in found.bboxes[k].tolist()]
            if 'masks' in found:
                from pycocotools import mask

                code = mask.encode(np.asfortranarray(found.masks[k].numpy(), dtype=np.uint8))
                entry['mask'] = dict(size=[int(v) for v in code['size']], counts=code['counts'].decode())
            objects.append(entry)
        return dict(objects=objects)

    def _segmentation(self, sample) -> dict[str, Any]:
        labels, counts = sample.pred_sem_seg.data.unique(return_counts=True)
        shares = {
            self._name(k): round(n / sample.pred_sem_seg.data.numel(), 6)
            for k, n in zip(labels.tolist(), counts.tolist())
        }
        return dict(shares=shares)

    @staticmethod
    def _meta(cfg: Config, content: dict) -> dict[str, Any]:
        """Class names: those that the run saved, or the config's, or the data set's own."""
        meta = (content.get('meta') or {}).get('dataset_meta')
        if not meta:
            dataset = _leaf(cfg.test_dataloader.dataset)
            kind = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
            meta = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
        meta = dict(meta)
        if meta.get('classes') and not meta.get('palette'):
            # The same colours in every run.
            colors = np.random.default_rng(0).integers(0, 256, (len(meta['classes']), 3)).tolist()
            meta['palette'] = [tuple(color) for color in colors]
        return meta


def build_model(cfg: Config) -> torch.nn.Module:
    """Build a config's model for weights that come from a checkpoint.

    Args:
        cfg (Config): Config of MMPretrain, MMDetection or MMSegmentation; its ``default_scope`` is in force.

    Returns:
        torch.nn.Module: The model, without synchronised batch norm and without pretrained weights.
    """
    model = without_sync_bn(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    if isinstance(model.get('backbone'), dict):
        model.backbone.init_cfg = None
    return MODELS.build(model)


def _leaf(dataset):
    while 'pipeline' not in dataset:
        inner = dataset.get('dataset') or dataset.get('datasets')
        dataset = inner[0] if isinstance(inner, (list, tuple)) else inner
    return dataset
