"""What is measured: pairs of models with equal weights, one line of data each."""

from typing import NamedTuple

import torch
from baselines import ReleasedViK
from mmpretrain.registry import MODELS

from vik_mm import ViK
from vik_mm.backbones.vik_keys import to_reference


class Case(NamedTuple):
    """One comparison; ``mode`` is 'inference' or 'training' (forward, backward, no optimizer step)."""

    arch: str
    mode: str
    batch: int
    size: int

    @property
    def name(self) -> str:
        return f'vik-{self.arch} {self.mode} {self.batch}x3x{self.size}x{self.size}'


CASES = [
    Case('small', 'inference', 1, 224),
    Case('small', 'inference', 8, 224),
    Case('small', 'training', 8, 224),
    Case('base', 'inference', 8, 224),
    Case('base', 'training', 8, 224),
]


def build(case: Case, which: str) -> torch.nn.Module:
    """Build 'ours' or 'release'; both have the same weights, off their start values so that every layer counts."""
    torch.manual_seed(0)
    setting = ViK.arch_settings[case.arch]
    ours = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ViK', arch=case.arch, img_size=case.size, layer_scale_init_value=0.3),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=setting['embed_dims'][-1]),
        )
    )
    if which == 'ours':
        return ours.train(case.mode == 'training')
    release = ReleasedViK(**setting, img_size=case.size)
    release.load_state_dict(to_reference(ours.state_dict()), strict=True)
    return release.train(case.mode == 'training')


def answer(model: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Compute logits, ``[B, 1000]``."""
    return model(image) if isinstance(model, ReleasedViK) else model.head(model.extract_feat(image))


def step(model: torch.nn.Module, image: torch.Tensor) -> None:
    """Do what is measured, once."""
    if model.training:
        answer(model, image).logsumexp(1).sum().backward()
        model.zero_grad(set_to_none=True)
    else:
        with torch.no_grad():
            answer(model, image)
