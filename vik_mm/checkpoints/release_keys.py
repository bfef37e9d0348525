"""Names of ViK's weights here and in the authors' release, and how to convert them.

The release numbers stages and down-sampling layers through (``network.0`` to ``network.6``), flattens centres and
widths, and keeps the global map as two linear layers. The classifier here is MMPretrain's: ``backbone.*`` and
``head.fc.*``.
"""

import re
from collections.abc import Callable

from torch import Tensor

from vik_mm.errors import BadInputError

# A name here (regular expression) and what stands in its place in the release, applied to the whole key in turn.
_RENAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r'^backbone\.stem\.conv\.', 'patch_embed.proj.'),
    (r'^backbone\.norm3\.', 'norm.'),
    (r'^head\.fc\.', 'head.'),
    (r'^backbone\.stages\.(\d+)\.downsample\.', lambda m: f'network.{2 * int(m[1]) - 1}.proj.'),
    (r'^backbone\.stages\.(\d+)\.blocks\.', lambda m: f'network.{2 * int(m[1])}.'),
    (r'\.layer_scale(\d)\.weight$', r'.layer_scale_\1'),
    (r'\.rbf_kan\.base\.', '.patch_mixer.base_linear.'),
    (r'\.rbf_kan\.centers$', '.patch_mixer.rbf_linear.mu'),
    (r'\.rbf_kan\.log_widths$', '.patch_mixer.rbf_linear.log_sigma'),
    (r'\.rbf_kan\.weight$', '.patch_mixer.rbf_linear.spline_weight'),
    (r'\.axis_h\.', '.dw_h.'),
    (r'\.axis_w\.', '.dw_w.'),
    (r'\.axis_gate\.(\d)\.', lambda m: f'.reweight_head.{int(m[1]) + 1}.'),
    (r'\.global_in$', '.lin1.weight'),
    (r'\.global_out$', '.lin2.weight'),
]

# Layers that the release makes in its first forward pass; files written from a copy made before it lack them.
_MADE_LATE = ('.dw_h.', '.dw_w.', '.reweight_head.', '.lin1.', '.lin2.')


def release_key(key: str) -> str:
    """Give the release's name of a weight of the classifier here.

    Args:
        key (str): E.g. ``'backbone.stages.2.blocks.0.token_mixer.rbf_kan.centers'``.

    Returns:
        str: E.g. ``'network.4.0.token_mixer.patch_mixer.rbf_linear.mu'``.
    """
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def to_release(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a classifier's weights to the release's names and shapes.

    Args:
        state_dict (dict[str, Tensor]): Weights of an ``ImageClassifier`` around ViK.

    Returns:
        dict[str, Tensor]: Weights that the release's ``load_state_dict`` takes after its first forward pass.

    Raises:
        BadInputError: If there are weights that the release has no place for; the message names them.
    """
    foreign = sorted(k for k in state_dict if not k.startswith(('backbone.', 'head.fc.')) or release_key(k) == k)
    if foreign:
        raise BadInputError(f'the release has no place for {_few(foreign)}; only ViK classifiers can be converted')
    return {release_key(key): _flatten(key, value) for key, value in state_dict.items()}


def from_release(state_dict: dict[str, Tensor], template: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the release's weights to those of a classifier here.

    Args:
        state_dict (dict[str, Tensor]): Weights of the release.
        template (dict[str, Tensor]): State dict of the classifier that is to take them, for its names and shapes.

    Returns:
        dict[str, Tensor]: Weights with the names and shapes of ``template``.

    Raises:
        BadInputError: If weights are missing or unknown, or have another shape; the message names them.
    """
    expected = {release_key(key): key for key in template}
    missing = sorted(expected.keys() - state_dict.keys())
    unknown = sorted(state_dict.keys() - expected.keys())
    misshapen = sorted(
        key
        for key in expected.keys() & state_dict.keys()
        if state_dict[key].shape != _flatten(expected[key], template[expected[key]]).shape
    )
    problems = []
    if missing:
        problems.append(f'missing are {_few(missing)}')
        if all(any(part in key for part in _MADE_LATE) for key in missing):
            problems.append(
                'the release makes these in its first forward pass, and this file was saved from a copy made before'
            )
    if unknown:
        problems.append(f'unknown are {_few(unknown)}')
    if misshapen:
        key = misshapen[0]
        shapes = f'{tuple(state_dict[key].shape)}, not {tuple(_flatten(expected[key], template[expected[key]]).shape)}'
        problems.append(f'of another shape are {_few(misshapen)} (the first is {shapes})')
    if problems:
        raise BadInputError('the checkpoint does not fit this model: ' + '; '.join(problems))
    return {own: state_dict[key].reshape(template[own].shape) for key, own in expected.items()}


def describe_release(state_dict: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Read the macro design off the release's weights.

    Args:
        state_dict (dict[str, Tensor]): Weights of the release.

    Returns:
        dict[str, tuple[int, ...]]: ``depths`` and ``embed_dims``, a number for each stage.

    Raises:
        BadInputError: If the weights are not those of a ViK.
    """
    depths: dict[int, int] = {}
    embed_dims: dict[int, int] = {}
    for key, value in state_dict.items():
        if match := re.match(r'network\.(\d+)\.(\d+)\.mlp\.fc2\.weight$', key):
            stage = int(match[1]) // 2
            depths[stage] = max(depths.get(stage, 0), int(match[2]) + 1)
            embed_dims[stage] = value.shape[0]
    if not depths:
        raise BadInputError(
            f'this is no ViK of the release: no network.*.*.mlp.fc2.weight among its keys {_few(sorted(state_dict))}'
        )
    return dict(
        depths=tuple(depths[i] for i in sorted(depths)), embed_dims=tuple(embed_dims[i] for i in sorted(depths))
    )


def _flatten(key: str, value: Tensor) -> Tensor:
    """Give a weight the shape that it has in the release."""
    if key.endswith(('.rbf_kan.centers', '.rbf_kan.log_widths')):
        return value.flatten()
    if key.endswith('.global_in'):
        return value.flatten(1)
    if key.endswith('.global_out'):
        return value.flatten(0, 1)
    return value


def _few(keys: list[str], most: int = 8) -> str:
    rest = f' and {len(keys) - most} more' if len(keys) > most else ''
    return ', '.join(keys[:most]) + rest
