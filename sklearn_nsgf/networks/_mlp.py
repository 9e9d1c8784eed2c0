"""The velocity network for vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sklearn_nsgf.networks._embedding import TimeEmbedding


class MLP(nn.Module):
    """Multi-layer perceptron on a point and its time, with ReLU activations.

    Where the paths of neighbouring points part, as between the modes of a target, the velocity jumps:
    rectifiers follow that sooner than smooth activations do.

    Parameters
    ----------
    n_features : int
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.networks import MLP
    >>> MLP(2, (16,))(torch.rand(5), torch.rand(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, n_features: int, hidden_layer_sizes: Sequence[int] = (256, 256, 256)) -> None:
        super().__init__()
        self.time_embedding = TimeEmbedding()
        widths = [n_features + self.time_embedding.width, *hidden_layer_sizes]
        layers: list[nn.Module] = []
        for n_inputs, n_outputs in pairwise(widths):
            layers += [nn.Linear(n_inputs, n_outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], n_features))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.layers(torch.cat([x, self.time_embedding(t)], dim=-1))
