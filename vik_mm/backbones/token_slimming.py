"""Fewer tokens in the later layers of a transformer: SiT's token slimming.

Shape letters: ``B`` images, ``N`` tokens, ``M`` slimmed tokens, ``C`` channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vik_mm.errors import BadInputError


class TokenSlimming(nn.Module):
    """Make ``M`` tokens of any number of tokens: each is a weighted mean of all, by weights that the tokens ask for.

    .. code-block:: text

        L = score(GELU(hidden(norm(x))))                [B, N, M]
        y = softmax over the N tokens (scale * L)^T x   [B, M, C]

    Args:
        embed_dims (int): Channels ``C``.
        num_tokens (int): ``M``. A checkpoint belongs to this number, because the tokens made have no order to resample.

    Shape:
        - Input: ``[B, N, C]``.
        - Output: ``[B, M, C]``.

    Source:
        arXiv 2111.12624; ``TokenSlimmingModule`` of Sense-X/SiT (commit f577808, Apache-2.0).
    """

    original_names = ((r'^norm\.', 'weight.0.'), (r'^hidden\.', 'weight.1.'), (r'^score\.', 'weight.3.'))

    def __init__(self, embed_dims: int, num_tokens: int):
        super().__init__()
        self.num_tokens = num_tokens
        self.norm = nn.LayerNorm(embed_dims)
        self.hidden = nn.Linear(embed_dims, embed_dims // 2)
        self.act = nn.GELU()
        self.score = nn.Linear(embed_dims // 2, num_tokens)
        self.scale = nn.Parameter(torch.ones(1, 1, 1))
        for layer in (self.hidden, self.score):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self._register_load_state_dict_pre_hook(self._explain_misfit)

    def forward(self, x: Tensor) -> Tensor:
        """Slim ``[B, N, C]`` to ``[B, M, C]``."""
        scores = self.scale * self.score(self.act(self.hidden(self.norm(x))))
        return scores.softmax(dim=1).to(x.dtype).transpose(1, 2) @ x

    def _explain_misfit(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        bias = state_dict.get(prefix + 'score.bias')
        if bias is not None and len(bias) != self.num_tokens:
            errors.append(
                f'{prefix.rstrip(".")} of the checkpoint slims to {len(bias)} tokens, this one to {self.num_tokens}: '
                'take the img_size and keep_ratio that it has, images of other sizes are taken all the same'
            )


def count_slimmed_tokens(
    slim_after: Sequence[int], keep_ratio: float, num_layers: int, num_tokens: int
) -> dict[int, int]:
    """Tell how many tokens are left after each layer that is followed by token slimming.

    Args:
        slim_after (Sequence[int]): Layers that are followed by slimming.
        keep_ratio (float): Share of the tokens that each slimming leaves.
        num_layers (int): Layers of the transformer.
        num_tokens (int): Tokens of the first layer, without class token.

    Returns:
        dict[int, int]: Tokens after each of these layers, at least 1.

    Raises:
        BadInputError: If the layers do not rise from 0 to the last but one, or the share is not above 0 and up to 1.
    """
    layers = list(slim_after)
    if any(not isinstance(i, int) or not 0 <= i < num_layers - 1 for i in layers) or layers != sorted(set(layers)):
        raise BadInputError(
            f'slim_after={tuple(slim_after)} must be rising numbers of layers, from 0 to {num_layers - 2}, the last '
            'layer that another one follows'
        )
    if not 0 < keep_ratio <= 1:
        raise BadInputError(f'keep_ratio={keep_ratio} must be above 0 and at most 1')
    return {layer: max(1, int(num_tokens * keep_ratio ** (k + 1))) for k, layer in enumerate(layers)}


def check_slimming(
    slim_after: Sequence[int], attn_cfg: dict, window_size: int, out_type: str, map_layers: Sequence[int]
) -> None:
    """Refuse token slimming where a layer needs tokens that lie on a grid.

    Args:
        slim_after (Sequence[int]): Layers that are followed by slimming.
        attn_cfg (dict): The transformer's attention.
        window_size (int): Side of its windows; 0 for none.
        out_type (str): What it returns.
        map_layers (Sequence[int]): Layers whose tokens it returns.

    Raises:
        BadInputError: If the attention is not softmax over all tokens, or a map is made of slimmed tokens.
    """
    if not slim_after:
        return
    if attn_cfg.get('type') != 'Softmax' or window_size:
        raise BadInputError(
            f'slim_after={tuple(slim_after)} needs attn_cfg=dict(type="Softmax") and window_size=0, because slimmed '
            f'tokens have no grid; got {attn_cfg.get("type")!r} and window_size={window_size}'
        )
    if out_type in ('featmap', 'pyramid') and max(map_layers) > min(slim_after):
        raise BadInputError(
            f'out_type={out_type!r} needs tokens on a grid, which there are up to layer {min(slim_after)} with '
            f'slim_after={tuple(slim_after)}; choose another out_type for classification, or slim_after=() for maps'
        )
