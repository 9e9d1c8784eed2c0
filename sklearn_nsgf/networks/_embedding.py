"""Embeddings of what a velocity depends on besides the point."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Time, and sines and cosines of it.

    Parameters
    ----------
    n_frequencies : int, default=4
        The sines and cosines have the angular frequencies ``pi, 2 pi, ..., n_frequencies pi``.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.networks import TimeEmbedding
    >>> TimeEmbedding(n_frequencies=1)(torch.tensor([0.0, 0.5]))
    tensor([[ 0.0000,  0.0000,  1.0000],
            [ 0.5000,  1.0000, -0.0000]])
    """

    def __init__(self, n_frequencies: int = 4) -> None:
        super().__init__()
        self.n_frequencies = n_frequencies
        self.width: int = 2 * n_frequencies + 1

    def forward(self, t: Tensor) -> Tensor:
        multiples = torch.arange(1, self.n_frequencies + 1, dtype=t.dtype, device=t.device)
        angles = math.pi * t.unsqueeze(-1) * multiples
        return torch.cat([t.unsqueeze(-1), angles.sin(), angles.cos()], dim=-1)
