"""What ViK and its operator are measured against, where no package has it.

``FastKANLayer`` and ``BSplineKANLayer`` are written from the formulas of their papers. ``ReleasedViK`` does the
arithmetic of the authors' release (SeriYann/ViK, ``vik.py``) step by step, with its names, so that it takes the same
weights; the layers that the release makes in its first forward pass are made in the constructor.
"""

import torch
import torch.nn.functional as F
from torch import nn


class FastKANLayer(nn.Module):
    """Gaussians on one fixed grid for all features, of the normalised input, and a SiLU branch (arXiv 2405.06721)."""

    def __init__(self, in_features, out_features, num_grids=8, grid_range=(-2.0, 2.0)):
        super().__init__()
        self.norm = nn.LayerNorm(in_features)
        self.register_buffer('grid', torch.linspace(*grid_range, num_grids))
        self.width = (grid_range[1] - grid_range[0]) / (num_grids - 1)
        self.spline = nn.Linear(in_features * num_grids, out_features, bias=False)
        self.base = nn.Linear(in_features, out_features)

    def forward(self, x):
        basis = torch.exp(-(((self.norm(x)[..., None] - self.grid) / self.width) ** 2))
        return self.spline(basis.flatten(-2)) + self.base(F.silu(x))


class BSplineKANLayer(nn.Module):
    """Cubic B-splines by the recursion of Cox and de Boor, evaluated once for all outputs as efficient-kan does, and a
    SiLU branch (arXiv 2404.19756); 5 intervals and order 3 make 8 basis functions."""

    def __init__(self, in_features, out_features, intervals=5, order=3, grid_range=(-2.0, 2.0)):
        super().__init__()
        self.order = order
        step = (grid_range[1] - grid_range[0]) / intervals
        self.register_buffer('knots', torch.arange(-order, intervals + order + 1) * step + grid_range[0])
        self.spline = nn.Linear(in_features * (intervals + order), out_features, bias=False)
        self.base = nn.Linear(in_features, out_features, bias=False)

    def forward(self, x):
        t, u = self.knots, x[..., None]
        basis = ((u >= t[:-1]) & (u < t[1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            rising = (u - t[: -k - 1]) / (t[k:-1] - t[: -k - 1]) * basis[..., :-1]
            falling = (t[k + 1 :] - u) / (t[k + 1 :] - t[1:-k]) * basis[..., 1:]
            basis = rising + falling
        return self.spline(basis.flatten(-2)) + self.base(F.silu(x))


class ExplicitAttention(nn.Module):
    """Attention that makes its map of weights, ``[B, heads, N, N]``, as the KArAt paper compares: softmax, or an
    operator whose basis is kept whole."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x, token_grid=None, operator=None):
        attention = self.attention
        operator = attention.operator or operator
        q, k, v = attention.project(x)
        scores = attention.scores(q, k)
        weights = scores.softmax(-1) if operator is None else operator(scores, token_grid)
        return attention.proj((weights @ v).transpose(1, 2).flatten(2))


class _Gaussians(nn.Module):
    def __init__(self, size, num_grids=8):
        super().__init__()
        self.shape = (size, num_grids)
        self.mu = nn.Parameter(torch.empty(size * num_grids))
        self.log_sigma = nn.Parameter(torch.empty(size * num_grids))
        self.spline_weight = nn.Parameter(torch.empty(size * num_grids, size))

    def forward(self, x):
        mu, sigma = self.mu.view(self.shape), self.log_sigma.exp().view(self.shape) + 1e-6
        basis = torch.exp(-0.5 * ((x.unsqueeze(-1) - mu) / sigma) ** 2)
        return basis.flatten(-2) @ self.spline_weight


class _PatchMixer(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.rbf_linear = _Gaussians(size)
        self.base_linear = nn.Linear(size, size)

    def forward(self, x):
        return self.rbf_linear(x) + self.base_linear(F.silu(x))


class _TokenMixer(nn.Module):
    def __init__(self, dim, side, patch=7):
        super().__init__()
        self.patch = patch
        self.patch_mixer = _PatchMixer(patch * patch)
        self.dw_h = nn.Conv2d(dim, dim, (3, 1), padding=(1, 0), groups=dim)
        self.dw_w = nn.Conv2d(dim, dim, (1, 3), padding=(0, 1), groups=dim)
        hidden = max(8, dim // 4)
        self.reweight_head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.Conv2d(hidden, 2, 1), nn.Softmax(dim=1)
        )
        rank = min(64, side * side)
        self.lin1 = nn.Linear(side * side, rank, bias=False)
        self.lin2 = nn.Linear(rank, side * side, bias=False)

    def forward(self, x):
        b, c, h, w = x.shape
        p = self.patch
        tokens = x.unfold(2, p, p).unfold(3, p, p).contiguous().view(b * c, -1, p * p)
        tokens = self.patch_mixer(tokens) + tokens
        y = tokens.view(b, c, h // p, w // p, p, p).permute(0, 1, 2, 4, 3, 5).contiguous().view(b, c, h, w)
        rows, columns = self.dw_h(y), self.dw_w(y)
        weights = self.reweight_head(y)
        y = weights[:, 0:1] * rows + weights[:, 1:2] * columns
        return y + self.lin2(self.lin1(y.view(b * c, h * w))).view(b, c, h, w)


class _Mlp(nn.Module):
    def __init__(self, dim, ratio=4):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(dim, dim * ratio, 1), nn.Conv2d(dim * ratio, dim, 1)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, dim, side):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, dim), nn.GroupNorm(1, dim)
        self.token_mixer, self.mlp = _TokenMixer(dim, side), _Mlp(dim)
        self.layer_scale_1, self.layer_scale_2 = (nn.Parameter(torch.empty(dim)) for _ in range(2))

    def forward(self, x):
        x = x + self.layer_scale_1[:, None, None] * self.token_mixer(self.norm1(x))
        return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))


class _Patches(nn.Module):
    def __init__(self, in_dim, dim, kernel_size, stride, padding):
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, kernel_size, stride, padding)

    def forward(self, x):
        return self.proj(x)


class ReleasedViK(nn.Module):
    """The classifier of the release.

    Args:
        depths (tuple[int, ...]): Blocks of each stage.
        embed_dims (tuple[int, ...]): Channels of each stage.
        img_size (int): Image side, a multiple of 224.
    """

    def __init__(self, depths, embed_dims, img_size=224, num_classes=1000):
        super().__init__()
        self.patch_embed = _Patches(3, embed_dims[0], 7, 4, 2)
        self.network = nn.ModuleList()
        for i, (depth, dim) in enumerate(zip(depths, embed_dims)):
            if i:
                self.network.append(_Patches(embed_dims[i - 1], dim, 3, 2, 1))
            side = img_size // (4 * 2**i)
            self.network.append(nn.Sequential(*(_Block(dim, side) for _ in range(depth))))
        self.norm = nn.GroupNorm(1, embed_dims[-1])
        self.head = nn.Linear(embed_dims[-1], num_classes)

    def forward(self, x):
        x = self.patch_embed(x)
        for layer in self.network:
            x = layer(x)
        return self.head(self.norm(x).mean((2, 3)))
