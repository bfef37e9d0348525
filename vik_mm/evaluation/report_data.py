"""All that a report is made of."""

import dataclasses
import json
import math
from typing import Any

from .detection import DetectionEvaluation


@dataclasses.dataclass
class Evaluation:
    """The figures of a model on a split of its data, and what its pictures are drawn from.

    Attributes:
        task (str): 'classification', 'detection' or 'segmentation'.
        classes (list[str]): Names, in the order of the labels.
        split (str): 'test' or 'val'.
        config (str): File of the config.
        checkpoint (str): File of the weights.
        records (list): one of each image, see ``vik_mm.evaluation.records``.
        other_metrics (dict[str, float]): What further metrics of the config's evaluator say.
        dataset (Any): The data set.
        figures (dict[str, Any]): All figures of the task.
        findings (list[str]): What stands out among them, a sentence each.
        detection (DetectionEvaluation | None): Of a detector.
    """

    task: str
    classes: list[str]
    split: str
    config: str
    checkpoint: str
    records: list
    other_metrics: dict[str, float]
    dataset: Any
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    findings: list[str] = dataclasses.field(default_factory=list)
    detection: DetectionEvaluation | None = None

    def to_json(self) -> str:
        """Write down all figures.

        Returns:
            str: JSON; figures that there are none of are null.
        """
        content = dict(
            task=self.task,
            split=self.split,
            config=self.config,
            checkpoint=self.checkpoint,
            images=len(self.records),
            classes=self.classes,
            findings=self.findings,
            other_metrics=self.other_metrics,
            figures=self.figures,
        )
        return json.dumps(_without_nan(content), allow_nan=False, indent=1) + '\n'


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
