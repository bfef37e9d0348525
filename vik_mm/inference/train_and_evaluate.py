"""What :class:`Model` hands on: a training that begins with its weights, and an evaluation of them."""

import argparse
import copy
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config

from vik_mm.checkpoints.work_dir import newest_checkpoint
from vik_mm.datasets.folders import prepare
from vik_mm.errors import BadInputError
from vik_mm.evaluation import Evaluation, evaluate
from vik_mm.recipes import prepare_training, train, write_config
from vik_mm.visualization import write_report
from vik_mm_cli.command_line import add_training_arguments, check_backbone, check_data_or_config

# What the call itself says.
_NOT_OPTIONS = ('config', 'data', 'safe_config')


class _Parser(argparse.ArgumentParser):
    """Raises where a command line would end the process."""

    def error(self, message: str) -> NoReturn:
        raise BadInputError(message)


def training_options(options: dict[str, Any]) -> argparse.Namespace:
    """Read options as the command line of ``tools/train.py`` does.

    Args:
        options (dict[str, Any]): By their names there, with ``_`` for ``-``; ``cfg_options`` is a dict.

    Returns:
        Namespace: The command line, without a config and without data.

    Raises:
        BadInputError: If there is no such option, or a value makes no sense.
    """
    parser = _Parser(prog='train', add_help=False, allow_abbrev=False)
    add_training_arguments(parser)
    known = sorted(set(vars(parser.parse_args([]))) - set(_NOT_OPTIONS))
    words: list[str] = []
    for name, value in options.items():
        flag = f'--{name.replace("_", "-")}'
        if name not in known:
            raise BadInputError(f'{name} is no option of a training; the options are {", ".join(known)}')
        if value is None or value is False or name == 'cfg_options':
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, (list, tuple)):
            words += [flag, *map(str, value)]
        else:
            words.append(f'{flag}={value}')
    args = parser.parse_args(words)
    args.cfg_options = options.get('cfg_options')
    if args.backbone is not None:
        check_backbone(args.backbone)
    return args


def train_further(cfg: Config, checkpoint: str, data: str | os.PathLike | None, options: dict[str, Any]) -> Any:
    """Train with a model's config and weights.

    Args:
        cfg (Config): The model's config.
        checkpoint (str): Its weights.
        data (str | PathLike, optional): A folder of one's own data; None for the data of the config.
        options (dict[str, Any]): Of :func:`training_options`.

    Returns:
        tuple[Config, str]: The config of the training, and its best checkpoint, or its last where none was judged.

    Raises:
        FileNotFoundError: If the folder or a file does not exist.
        BadInputError: If an option or the data cannot be used.
    """
    args = training_options(options)
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, 'model.py')
        before = _anew(cfg)
        if data is None:
            if args.pretrained is None:
                before.load_from = os.path.abspath(checkpoint)
            args.config = str(own)
            # Not where the model itself lies.
            args.work_dir = args.work_dir or f'{cfg.get("work_dir") or "work_dirs/model"}_further'
        else:
            args.data = os.fspath(data)
            args.pretrained = args.pretrained or checkpoint
            if args.model is None and args.backbone is None:
                args.model = str(own)
        before.dump(own)
        check_data_or_config(args)
        runner = train(prepare_training(args))
    known = runner.message_hub.runtime_info
    best = next((value for key, value in known.items() if key.startswith('best_ckpt') and value), None)
    path = best or newest_checkpoint(runner.work_dir)
    if path is None:
        raise BadInputError(f'the training has left no checkpoint in {runner.work_dir}')
    return copy.deepcopy(runner.cfg), str(path)


def evaluate_model(
    cfg: Config,
    checkpoint: str,
    classes: tuple[str, ...],
    data: str | os.PathLike | None,
    out: str | os.PathLike | None,
    num_pictures: int,
    **options: Any,
) -> Evaluation | None:
    """Evaluate a model's weights.

    Args:
        cfg (Config): The model's config.
        checkpoint (str): Its weights.
        classes (tuple[str, ...]): Its classes.
        data (str | PathLike, optional): A folder of one's own data; None for the data of the config.
        out (str | PathLike, optional): Folder for the report; None for none.
        num_pictures (int): Worst images to keep.
        **options: Of :func:`vik_mm.evaluation.evaluate`.

    Returns:
        Evaluation | None: The figures; None on all but the main process.

    Raises:
        FileNotFoundError: If the folder or the checkpoint does not exist.
        BadInputError: If the data have other classes than the model, or cannot be evaluated.
    """
    # Logs of the test loop are of no use beside the report.
    with tempfile.TemporaryDirectory() as folder:
        cfg = _anew(cfg)
        if data is not None:
            cfg = _with_data(cfg, data, classes, Path(folder))
        cfg.work_dir = folder
        # MMEngine's own name holds the second, and two evaluations may begin in one.
        cfg.experiment_name = f'evaluation_{uuid.uuid4().hex}'
        result = evaluate(cfg, checkpoint, num_pictures=num_pictures, **options)
    if result is not None and out is not None:
        write_report(result, out, num_pictures)
    return result


def _with_data(cfg: Config, data: str | os.PathLike, classes: tuple[str, ...], folder: Path) -> Config:
    """Put a folder's data into a model's config; the model stays as it is."""
    if not Path(data).exists():
        raise FileNotFoundError(f'data {data} does not exist')
    found = prepare(os.fspath(data))
    if classes and tuple(found.classes) != classes:
        raise BadInputError(
            f'{data} has the classes {", ".join(found.classes)}, and the model has {", ".join(classes)}: a model can '
            'only be judged on its own classes, in their order'
        )
    cfg.dump(folder / 'model.py')
    made = write_config(found, folder / 'config.py', model=str(folder / 'model.py'))
    made.model = cfg.model
    return made


def _anew(cfg: Config) -> Config:
    """Copy a config without what an earlier run has left in it."""
    cfg = copy.deepcopy(cfg)
    cfg.load_from, cfg.resume, cfg.launcher = None, False, 'none'
    cfg.pop('experiment_name', None)
    return cfg
