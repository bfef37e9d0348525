"""A trained model of any task on single images."""

import hashlib
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, VISUALIZERS, init_default_scope
from mmengine.visualization.vis_backend import BaseVisBackend

from vik_mm.backbones import ViK
from vik_mm.backbones.arguments import MIN_IMAGE_SIZE
from vik_mm.checkpoints import load_weights, read_checkpoint, unwrap_state_dict
from vik_mm.checkpoints.atomic_files import UNFINISHED
from vik_mm.config.machine import without_sync_bn
from vik_mm.datasets.nesting import nested_configs
from vik_mm.deploy import exported_format, run_exported
from vik_mm.errors import BadInputError

from .input_images import is_regular_file, readable

_TASKS = {'mmpretrain': 'classification', 'mmdet': 'detection', 'mmseg': 'segmentation'}
_NO_IMAGE_STEPS = ('LoadAnnotations', 'LoadPanopticAnnotations')


class Predictor:
    """Runs a model on images, with the pipeline that its config tests with.

    Args:
        cfg (Config): Config of MMPretrain, MMDetection or MMSegmentation, told by its ``default_scope``.
        checkpoint (str | PathLike): Weights; all must fit. Read as data, never as code. Or a file of
            :func:`vik_mm.deploy.export`, which runs on the CPU.
        device (str, optional): None takes a GPU where there is one. Defaults to None.

    Raises:
        ValueError: If the config belongs to none of the three packages, or the weights do not fit.
        FileNotFoundError: If there is no such checkpoint.
    """

    def __init__(self, cfg: Config, checkpoint: str | os.PathLike, device: str | None = None):
        scope = cfg.get('default_scope')
        if scope not in _TASKS:
            raise BadInputError(f'default_scope={scope!r} of the config must be one of {sorted(_TASKS)}')
        self.task = _TASKS[scope]
        init_default_scope(scope)
        is_exported = exported_format(checkpoint) is not None
        has_gpu = torch.cuda.is_available() and not is_exported
        self.device = torch.device(device or ('cuda' if has_gpu else 'cpu'))
        content = {} if is_exported else read_checkpoint(checkpoint)

        self.model = build_model(cfg)
        self._min_size = MIN_IMAGE_SIZE if any(isinstance(part, ViK) for part in self.model.modules()) else 1
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

        pipeline = pipeline_of(cfg.test_dataloader.dataset)
        steps = [step for step in pipeline if step['type'] not in _NO_IMAGE_STEPS]
        first = next((k for k, step in enumerate(steps) if _type_name(step).startswith('Load')), 0) + 1
        self._load, self._prepare = Compose(steps[:first]), Compose(steps[first:])
        # Visualizers are kept by name; each predictor needs one of its own.
        self._drawn = _LastPicture()
        self._visualizer_cfg = dict(cfg.get('visualizer') or {}, name=f'predictor_{id(self)}')
        self._visualizer: Any = None

    def __call__(self, image: str | os.PathLike) -> tuple[dict[str, Any], Any]:
        """Predict on an image file.

        An image that the pipeline leaves smaller than ViK takes is continued by its last pixels to the right and below;
        the results are about the image itself.

        Args:
            image (str | PathLike): The file.

        Returns:
            tuple[dict, BaseDataElement]: What goes into a JSON file, and the data sample of the model's package. The
            dict has ``image``, ``task``, and for classification ``label``, ``class``, ``score`` and ``top`` (the best
            five); for detection ``objects`` with ``label``, ``class``, ``score``, ``box`` (x1, y1, x2, y2 in pixels)
            and, where there are masks, ``mask`` (COCO's run-length code); for segmentation ``shares``, the share of
            the picture that each class found takes.

        Raises:
            BadInputError: If the file is no image, or its sides do not suit the pipeline.
        """
        data = self._read(image)
        height, width = data['img'].shape[:2]
        try:
            data = self._prepare(data)
        except (cv2.error, ValueError) as error:  # what resizing to nothing raises; all else is no fault of the image
            raise BadInputError(
                f'{readable(image)} ({width}x{height} pixels) cannot be prepared as the config says '
                f'({type(error).__name__}: {_in_one_line(error)})'
            ) from error
        self._extend(data)
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
        if self._visualizer is None:
            self._visualizer = VISUALIZERS.build(dict(self._visualizer_cfg, vis_backends=[self._drawn]))
            self._visualizer.dataset_meta = self.dataset_meta
        # As the model saw it: turned by EXIF or not, the pipeline decides.
        picture = np.ascontiguousarray(_as_bgr(self._read(image)['img'])[..., ::-1])
        if self.task == 'classification':
            self._visualizer.visualize_cls(
                picture, sample, classes=self.dataset_meta.get('classes'), draw_gt=False, show=False
            )
        elif self.task == 'detection':
            self._visualizer.add_datasample(
                '', picture, sample.cpu(), draw_gt=False, show=False, pred_score_thr=score_thr
            )
        else:
            # As arrays: a mask of one pixel that is a tensor would be taken for an index.
            self._visualizer.add_datasample(
                '', picture, sample.cpu().numpy(), draw_gt=False, show=False, with_labels=True
            )
        _write_png(self._drawn.picture[..., ::-1], path)

    def save_label_map(self, sample, path: str | os.PathLike) -> None:
        """Write a segmentation's labels as a picture of one channel, pixel values as in the annotations of the task.

        Args:
            sample (SegDataSample): What a call returned.
            path (str | PathLike): PNG file to write.
        """
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        _write_png(labels.astype(np.uint8 if labels.max() < 256 else np.uint16), path)

    def _read(self, image: str | os.PathLike) -> dict[str, Any]:
        """What the pipeline makes of a file before it changes the picture, which is under ``img``."""
        reason = 'it is no regular file'
        try:
            if is_regular_file(image):  # opening a pipe would wait forever
                if data := self._load(dict(img_path=str(image), img_id=0)):
                    return data
                reason = 'the pipeline leaves it out'
        except Exception as error:
            raise BadInputError(f'{readable(image)} cannot be read as an image ({_in_one_line(error)})') from error
        raise BadInputError(f'{readable(image)} cannot be read as an image ({reason})')

    def _extend(self, data: dict[str, Any]) -> None:
        """Continue an image that is smaller than the backbone takes; changes the pipeline's output."""
        picture = data['inputs']
        height, width = picture.shape[-2:]
        right, below = max(self._min_size - width, 0), max(self._min_size - height, 0)
        if not right and not below:
            return
        extended = F.pad(picture[None].float(), (0, right, 0, below), mode='replicate')[0]
        data['inputs'] = extended.to(picture.dtype)
        if self.task == 'segmentation':
            # By these MMSegmentation knows what to cut off; MMDetection goes by img_shape, which stays.
            shape = (height + below, width + right)
            data['data_samples'].set_metainfo(dict(pad_shape=shape, padding_size=[0, right, 0, below]))

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
            entry: dict[str, Any] = dict(label=label, score=round(float(found.scores[k]), 6)) | {
                'class': self._name(label)
            }
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
            dataset = _with_pipeline(cfg.test_dataloader.dataset)
            kind = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
            meta = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
        meta = dict(meta)
        if meta.get('classes') and not meta.get('palette'):
            # The same colours in every run.
            colors = np.random.default_rng(0).integers(0, 256, (len(meta['classes']), 3)).tolist()
            meta['palette'] = [tuple(color) for color in colors]
        return meta


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


def pipeline_of(dataset: Any) -> list[Any]:
    """Find the steps that a data set's config reads images with.

    Raises:
        BadInputError: If it has none.
    """
    return _with_pipeline(dataset).pipeline


def _with_pipeline(dataset):
    """Find the data set that loads images, within those that wrap it."""
    for _, each in nested_configs(dataset):
        if 'pipeline' in each:
            return each
    raise BadInputError('no data set of test_dataloader has a pipeline, which says how images are read')


def _type_name(step: dict) -> str:
    kind = step['type']
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else kind.__name__


def _in_one_line(error: Exception) -> str:
    return ' '.join(str(error).split()) or type(error).__name__


def _as_bgr(picture: np.ndarray) -> np.ndarray:
    """Three channels of 8 bits, of whatever a pipeline loads."""
    if picture.dtype == np.uint16:
        picture = picture // 257
    if picture.ndim == 2:
        picture = picture[..., None]
    picture = picture[..., :3] if picture.shape[-1] >= 3 else picture[..., :1].repeat(3, axis=-1)
    return picture.clip(0, 255).astype(np.uint8)


def _write_png(picture: np.ndarray, path: str | os.PathLike) -> None:
    """Write a PNG file whole or not at all; unlike with checkpoints, nobody waits until it is on the disk."""
    is_encoded, content = cv2.imencode('.png', picture)
    if not is_encoded:
        raise ValueError(f'a picture of shape {picture.shape} cannot be encoded as PNG')
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, and of one picture only, so that the next run takes away what a killed one has left.
    unfinished = path.with_name(f'.{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}{UNFINISHED}')
    try:
        unfinished.write_bytes(content.tobytes())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
