"""A trained model, from pictures to predictions."""

import copy
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from vik_mm.checkpoints import load_weights, read_checkpoint, unwrap_state_dict
from vik_mm.deploy import ENDINGS, export, exported_format, run_exported
from vik_mm.errors import BadInputError, UnavailableError

from .drawing import Artist
from .pictures import Picture, is_stream, pictures_of
from .pipeline import ChannelOrder, with_pipeline
from .predictor import Predictor, build_model
from .results import Result, content_of
from .tiles import check_tiles
from .tiling import check_task, in_batches, predict_content

if TYPE_CHECKING:
    from vik_mm.evaluation import Evaluation

_TASKS = {'mmpretrain': 'classification', 'mmdet': 'detection', 'mmseg': 'segmentation'}


class Model:
    """A model with its weights and the pipeline that its config tests with; :func:`vik_mm.load` makes one.

    Several threads may use one model at a time.

    Args:
        cfg (Config): Config of MMPretrain, MMDetection or MMSegmentation, told by its ``default_scope``.
        checkpoint (str | PathLike): Weights; all must fit. Read as data, never as code. Or a file of
            :func:`vik_mm.deploy.export`, which runs on the CPU.
        device (str, optional): None takes a GPU where there is one. Defaults to None.
        amp (bool): Whether to compute in mixed precision: float16 on GPUs, bfloat16 on CPUs. Defaults to False.

    Raises:
        BadInputError: If the config belongs to none of the three packages, or the weights do not fit.
        FileNotFoundError: If there is no such checkpoint.
    """

    def __init__(
        self, cfg: Config, checkpoint: str | os.PathLike, device: str | torch.device | None = None, amp: bool = False
    ):
        scope = cfg.get('default_scope')
        if scope not in _TASKS:
            raise BadInputError(f'default_scope={scope!r} of the config must be one of {sorted(_TASKS)}')
        self.task = _TASKS[scope]
        self.cfg, self.checkpoint = cfg, str(checkpoint)
        init_default_scope(scope)
        self._is_exported = exported_format(checkpoint) is not None
        has_gpu = torch.cuda.is_available() and not self._is_exported
        self.device = torch.device(device or ('cuda' if has_gpu else 'cpu'))
        content = {} if self._is_exported else read_checkpoint(checkpoint)
        network = build_model(cfg)
        dataset = cfg.test_dataloader.dataset
        predictor = Predictor(network, dataset, self.device, amp)
        if self._is_exported:
            classes = run_exported(network, checkpoint)['classes']
            content = dict(meta=dict(dataset_meta=dict(classes=classes))) if classes else {}
        else:
            try:
                load_weights(network, unwrap_state_dict(content, prefer_ema=False)[0])
            except BadInputError as error:
                raise BadInputError(f'{checkpoint} does not fit the config: {error}') from error
        network.to(self.device).eval()
        self._predictor = predictor
        self.dataset_meta = _meta(cfg, content)
        self._artist = Artist(cfg, self.dataset_meta)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty where neither the checkpoint nor the config has any."""
        return tuple(map(str, self.dataset_meta.get('classes') or ()))

    def predict(
        self,
        images: Any,
        batch_size: int = 1,
        score_thr: float = 0.3,
        tile: int | None = None,
        overlap: float = 0.2,
        channel_order: ChannelOrder = 'RGB',
        stream: bool | None = None,
    ) -> Any:
        """Predict on pictures.

        Args:
            images (Any): The path of an image file, or of a folder, which is searched with all below it; an array
                ``[H, W, channels]`` or ``[H, W]``, uint8; an image of PIL; or a list or generator of those.
            batch_size (int): Pictures that are computed together, or windows of a picture. Only those that the test
                pipeline brings to one size are: a prediction does not depend on it but by rounding. Defaults to 1.
            score_thr (float): Objects of a lower score are left out; 0 keeps all that the model gives. Only for
                detection; with tiles, before what several tiles show is joined. Defaults to 0.3.
            tile (int, optional): Side of windows, in pixels of the picture, in which a larger picture is predicted on.
                None for none. Only for detection and segmentation. Defaults to None.
            overlap (float): Share of a window's side that the next window sees too. Defaults to 0.2.
            channel_order (str): Of arrays with three or four channels: 'RGB', as PIL and Matplotlib have it, or 'BGR',
                as OpenCV has it. Defaults to 'RGB'.
            stream (bool, optional): Whether to return a generator, which predicts as it is asked. None does so for
                generators and other iterators. Defaults to None.

        Returns:
            list[Result] | Iterator[Result]: One for each picture, in order.

        Raises:
            FileNotFoundError: If a path does not exist, or a folder holds no image.
            BadInputError: If an argument is wrong, a picture cannot be read, or its sides do not suit the pipeline.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise BadInputError(f'batch_size={batch_size!r} must be a whole number of at least 1')
        if tile is not None:
            check_task(self.task)
            check_tiles(tile, overlap)
        results = self._run(pictures_of(images, channel_order), batch_size, score_thr, tile, overlap)
        return results if (is_stream(images) if stream is None else stream) else list(results)

    def export(
        self,
        path: str | os.PathLike,
        format: str | None = None,
        part: str = 'model',
        dtype: str = 'float32',
        raw_input: bool = False,
    ) -> dict[str, Any]:
        """Write the model as a file that runs without this project; see :func:`vik_mm.deploy.export`.

        Args:
            path (str | PathLike): The file.
            format (str, optional): 'onnx', 'torch-export', 'torchscript' or 'aoti'; None goes by the file's ending.
                Defaults to None.
            part (str): 'model' or 'backbone'. Defaults to 'model'.
            dtype (str): 'float32', 'float16', 'bfloat16' or 'int8'. Defaults to 'float32'.
            raw_input (bool): Take normalised images and give what the network computes, in place of 8-bit images and
                finished answers. :func:`vik_mm.load` takes such files. Defaults to False.

        Returns:
            dict[str, Any]: What the file holds about itself, and ``max_difference`` to the model.

        Raises:
            BadInputError: If the model was loaded from an exported file, or the arguments do not go together.
            UnavailableError: If the format needs a package that is not installed.
        """
        if self._is_exported:
            raise BadInputError(f'{self.checkpoint} is exported already; load the checkpoint that it was made of')
        format = format or exported_format(path)
        if format is None:
            raise BadInputError(f'{path} must end in one of {sorted(ENDINGS.values())}, or format must be given')
        # A copy: the exporter changes the model, and other threads may be predicting.
        network = copy.deepcopy(self._predictor.model).cpu().float()
        try:
            pipeline = None if raw_input else with_pipeline(self.cfg.test_dataloader.dataset).pipeline
            return export(
                *(network, path, format, part, dtype, self.classes or None), pipeline=pipeline, raw_input=raw_input
            )
        except ModuleNotFoundError as error:
            raise UnavailableError(f'format {format} needs {error.name}: pip install vik_mm[export]') from error

    def train(self, data: str | os.PathLike | None = None, **options: Any) -> 'Model':
        """Train further, as ``tools/train.py`` does; this model stays as it is.

        Args:
            data (str | PathLike, optional): A folder of your own data: the backbone begins with this model's weights,
                and heads are new. None takes the data of the config, and all weights. Defaults to None.
            **options: Options of ``tools/train.py`` with ``_`` for ``-``: ``epochs=20``, ``time='2h'``, ``ema=True``,
                ``work_dir='work_dirs/mine'``, ``cfg_options={'randomness.seed': 0}``. With ``data``, ``model`` and
                ``backbone`` choose another model.

        Returns:
            Model: With the best checkpoint of the training; with the last one, where no validation chose.

        Raises:
            FileNotFoundError: If the folder, the checkpoint or a file does not exist.
            BadInputError: If an option or the data cannot be used, or the model was loaded from an exported file.
            TrainingStopped: If the training was told to stop, and has saved itself.
        """
        # Recipes and reports take long to import, and who predicts needs none.
        from .train_and_evaluate import train_further

        if self._is_exported:
            raise BadInputError(f'{self.checkpoint} is exported and cannot be trained; load its checkpoint')
        cfg, checkpoint = train_further(self.cfg, self.checkpoint, data, options)
        return Model(cfg, checkpoint, self.device, self._predictor.is_amp)

    def evaluate(
        self,
        data: str | os.PathLike | None = None,
        out: str | os.PathLike | None = None,
        split: str | None = None,
        score_thr: float | None = None,
        num_pictures: int = 12,
    ) -> 'Evaluation | None':
        """Compute all figures on a split of data with truth, as ``tools/evaluate.py`` does.

        Args:
            data (str | PathLike, optional): A folder of your own data, with the model's classes; None takes the data
                of the config. Defaults to None.
            out (str | PathLike, optional): Folder for the report; None writes none. Defaults to None.
            split (str, optional): 'test' or 'val'; None takes 'test' where there is one. Defaults to None.
            score_thr (float, optional): Lowest score of detections in the confusion matrix and the pictures; None
                takes the one with the highest F1. Defaults to None.
            num_pictures (int): Worst images to keep. Defaults to 12.

        Returns:
            Evaluation | None: ``figures`` and ``findings``; None on all but the main process.

        Raises:
            FileNotFoundError: If the folder or the checkpoint does not exist.
            BadInputError: If there is no such split, or the data do not suit the model.
        """
        from .train_and_evaluate import evaluate_model

        return evaluate_model(
            *(self.cfg, self.checkpoint, self.classes, data, out, num_pictures),
            split=split,
            score_thr=score_thr,
            is_amp=self._predictor.is_amp,
        )

    def _run(self, pictures: Iterator[Picture], batch_size: int, score_thr: float, tile, overlap) -> Iterator[Result]:
        for batch in in_batches(pictures, 1 if tile else batch_size):
            loaded = [picture.load(self._predictor.pipeline) for picture in batch]
            if tile:
                content = predict_content(
                    self._predictor, self.task, loaded[0], batch[0].name, int(tile), overlap, batch_size, score_thr
                )
                contents = [content]
            else:
                samples = self._predictor(loaded, [picture.name for picture in batch])
                contents = [content_of(sample, self.task, score_thr) for sample in samples]
            for picture, data, content in zip(batch, loaded, contents):
                yield self._result(picture, data['img'].shape[:2], content)

    def _result(self, picture: Picture, size: tuple[int, int], content: dict[str, Any]) -> Result:
        def draw(result: Result) -> np.ndarray:
            # As the model saw it: turned by EXIF or not, the pipeline decides.
            return self._artist.draw(picture.load(self._predictor.pipeline)['img'], result)

        return Result(self.task, size, self.classes, picture.path, **content, _draw=draw)


def _meta(cfg: Config, content: dict) -> dict[str, Any]:
    """Class names: those that the run saved, or the config's, or the data set's own."""
    meta = (content.get('meta') or {}).get('dataset_meta')
    if not meta:
        dataset = with_pipeline(cfg.test_dataloader.dataset)
        kind = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
        meta = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    meta = dict(meta)
    if meta.get('classes') and not meta.get('palette'):
        # The same colours in every run.
        colors = np.random.default_rng(0).integers(0, 256, (len(meta['classes']), 3)).tolist()
        meta['palette'] = [tuple(color) for color in colors]
    return meta
