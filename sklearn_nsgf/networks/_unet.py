"""The velocity network for images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklearn_nsgf.networks._embedding import TimeEmbedding


class UNet(nn.Module):
    """U-Net on an image and its time, with residual blocks and attention.

    The architecture follows [1]_, reduced to what small images need: levels of halved resolution, each with
    residual blocks that see the time, self-attention on some of them, and skips from the way down to the
    way up. Any image size works: halves are rounded up and cut off again.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width.
    n_channels : int, default=32
        Channels of the first level.
    channel_multipliers : sequence of int, default=(1, 2, 2)
        Channels of each level, in units of `n_channels`.
    n_blocks : int, default=1
        Residual blocks on each level, on each way.
    attention_levels : sequence of int, default=(1,)
        Levels with self-attention; level k has the resolution of the image divided by ``2**k``.
    n_heads : int, default=1
        Heads of the attention.
    dropout : float, default=0.0
    n_classes : int, default=0
        Number of classes that `forward` takes as its third argument; 0 for none.

    Notes
    -----
    The sizes of [2]_ are ``UNet((1, 28, 28))`` for MNIST and ``UNet((3, 32, 32), n_channels=128,
    channel_multipliers=(1, 2, 2, 2), n_blocks=2, n_heads=4)`` for CIFAR-10.

    References
    ----------
    .. [1] Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. NeurIPS 2021.
    .. [2] Zhu, Wang, Zhang, Zhao, Qian. Neural Sinkhorn Gradient Flow. arXiv:2401.14069, 2024.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.networks import UNet
    >>> UNet((3, 15, 9), n_channels=8)(torch.rand(2), torch.rand(2, 3, 15, 9)).shape
    torch.Size([2, 3, 15, 9])
    """

    time_embedding: TimeEmbedding
    embed_time: nn.Sequential
    embed_label: nn.Embedding | None
    first: nn.Conv2d
    down: nn.ModuleList
    up: nn.ModuleList
    shrink: nn.ModuleList
    grow: nn.ModuleList
    middle: nn.ModuleList
    n_levels: int
    n_blocks: int
    last: nn.Sequential

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        n_channels: int = 32,
        channel_multipliers: Sequence[int] = (1, 2, 2),
        n_blocks: int = 1,
        attention_levels: Sequence[int] = (1,),
        n_heads: int = 1,
        dropout: float = 0.0,
        n_classes: int = 0,
    ) -> None:
        super().__init__()
        n_levels = len(channel_multipliers)
        if (
            len(image_shape) != 3
            or not n_levels
            or not all(level in range(n_levels) for level in attention_levels)
        ):
            raise ValueError(
                f"image_shape={image_shape}, channel_multipliers={channel_multipliers}, "
                f"attention_levels={attention_levels}: expected (C, H, W), a multiplier for each level, and "
                "attention on levels that there are, counted from 0."
            )
        widths = [n_channels * multiplier for multiplier in channel_multipliers]
        width_of_embedding = 4 * n_channels
        self.time_embedding = TimeEmbedding(n_frequencies=16)
        self.embed_time = nn.Sequential(
            nn.Linear(self.time_embedding.width, width_of_embedding),
            nn.SiLU(),
            nn.Linear(width_of_embedding, width_of_embedding),
        )
        self.embed_label = nn.Embedding(n_classes, width_of_embedding) if n_classes else None

        def block(n_inputs: int, n_outputs: int, level: int) -> nn.Module:
            heads = n_heads if level in attention_levels else 0
            return _Block(n_inputs, n_outputs, width_of_embedding, heads, dropout)

        self.first = nn.Conv2d(image_shape[0], widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        width, skipped = widths[0], [widths[0]]
        for level, n_outputs in enumerate(widths):
            if level > 0:
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skipped.append(width)
            for _ in range(n_blocks):
                self.down.append(block(width, n_outputs, level))
                width = n_outputs
                skipped.append(width)
        self.middle = nn.ModuleList(block(width, width, level) for level in attention_levels[-1:])
        self.middle.append(_Block(width, width, width_of_embedding, 0, dropout))
        for level, n_outputs in reversed(list(enumerate(widths))):
            for _ in range(n_blocks + 1):
                self.up.append(block(width + skipped.pop(), n_outputs, level))
                width = n_outputs
            if level > 0:
                self.grow.append(nn.Conv2d(width, width, 3, padding=1))
        self.n_levels, self.n_blocks = len(widths), n_blocks
        self.last = nn.Sequential(
            _norm(width), nn.SiLU(), _zeroed(nn.Conv2d(width, image_shape[0], 3, padding=1))
        )

    def forward(self, t: Tensor, x: Tensor, y: Tensor | None = None) -> Tensor:
        if (y is None) != (self.embed_label is None):
            raise ValueError("UNet takes classes y if it was made with n_classes, and only then.")
        embedding = self.embed_time(self.time_embedding(t))
        if self.embed_label is not None:
            embedding = embedding + self.embed_label(y)
        down, up = iter(self.down), iter(self.up)
        x = self.first(x)
        skipped = [x]
        for level in range(self.n_levels):
            if level > 0:
                x = self.shrink[level - 1](x)
                skipped.append(x)
            for _ in range(self.n_blocks):
                x = next(down)(x, embedding)
                skipped.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for place in range(self.n_levels):
            for _ in range(self.n_blocks + 1):
                x = next(up)(torch.cat([x, skipped.pop()], dim=1), embedding)
            if skipped:
                x = self.grow[place](functional.interpolate(x, size=skipped[-1].shape[-2:]))
        return self.last(x)


class _Block(nn.Module):
    """Two convolutions around which the image goes by itself, then attention if there are heads."""

    def __init__(self, n_inputs: int, n_outputs: int, n_embedded: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_in, self.norm_out = _norm(n_inputs), _norm(n_outputs)
        self.conv_in = nn.Conv2d(n_inputs, n_outputs, 3, padding=1)
        self.conv_out = _zeroed(nn.Conv2d(n_outputs, n_outputs, 3, padding=1))
        self.modulation = nn.Linear(n_embedded, 2 * n_outputs)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Identity() if n_inputs == n_outputs else nn.Conv2d(n_inputs, n_outputs, 1)
        self.attention = _Attention(n_outputs, n_heads) if n_heads else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_in(functional.silu(self.norm_in(x)))
        scale, shift = self.modulation(functional.silu(embedding))[..., None, None].chunk(2, dim=1)
        h = self.norm_out(h) * (1 + scale) + shift
        return self.attention(self.shortcut(x) + self.conv_out(self.dropout(functional.silu(h))))


class _Attention(nn.Module):
    """Every place of the image looks at every other."""

    def __init__(self, n_channels: int, n_heads: int) -> None:
        super().__init__()
        if n_channels % n_heads:
            raise ValueError(f"n_heads={n_heads} must divide the {n_channels} channels of its level.")
        self.norm, self.n_heads = _norm(n_channels), n_heads
        self.project_in = nn.Conv2d(n_channels, 3 * n_channels, 1)
        self.project_out = _zeroed(nn.Conv2d(n_channels, n_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        places = self.project_in(self.norm(x)).flatten(2).unflatten(1, (3, self.n_heads, -1)).mT
        seen = functional.scaled_dot_product_attention(*places.unbind(1))
        return x + self.project_out(seen.mT.reshape(x.shape))


def _norm(n_channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(n_channels, 8), n_channels)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Let a residual branch begin as nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
