"""Configs in Python that stand in checkpoints, which MMEngine would run."""

from mmengine.config import Config

from vik_mm.errors import BadInputError


def refuse_configs_from_text() -> None:
    """Have ``Config.fromstring`` refuse Python for the rest of this process.

    MMEngine calls it on text that stands in checkpoints: on ``meta.config`` when a run resumes, and on the run's config
    when an inferencer is given only weights. Configs in Python run when they are read.
    """
    if Config.fromstring is not _fromstring:
        Config.fromstring = staticmethod(_fromstring)


_original_fromstring = Config.fromstring


def _fromstring(cfg_str: str, file_format: str) -> Config:
    if file_format == '.py':
        raise BadInputError(
            'a config in Python that stands in a checkpoint is not loaded because loading it runs code; write it to a '
            'file, read it, and give that file'
        )
    return _original_fromstring(cfg_str, file_format)
