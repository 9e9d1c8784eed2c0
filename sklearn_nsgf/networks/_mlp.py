"""The velocity network for vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklearn_nsgf.networks._embedding import TimeEmbedding


class MLP(nn.Module):
    """Multi-layer perceptron on a point and its time, with ReLU activations.

    Where the paths of neighbouring points part, as between the modes of a target, the velocity jumps:
    rectifiers follow that sooner than smooth activations do.

    Parameters
    ----------
    n_features : int
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
    n_classes : int, default=0
        Number of classes that `forward` takes as its third argument; 0 for none.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.networks import MLP
    >>> MLP(2, (16,))(torch.rand(5), torch.rand(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        n_features: int,
        hidden_layer_sizes: Sequence[int] = (256, 256, 256),
        n_classes: int = 0,
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.time_embedding: TimeEmbedding = TimeEmbedding()
        widths = [n_features + self.time_embedding.width + n_classes, *hidden_layer_sizes]
        layers: list[nn.Module] = []
        for n_inputs, n_outputs in pairwise(widths):
            layers += [nn.Linear(n_inputs, n_outputs), nn.ReLU()]
        last = nn.Linear(widths[-1], n_features)
        # Nothing moves before the first step of the training.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers: nn.Sequential = nn.Sequential(*layers, last)

    def forward(self, t: Tensor, x: Tensor, y: Tensor | None = None) -> Tensor:
        if (y is None) != (self.n_classes == 0):
            raise ValueError("MLP takes classes y if it was made with n_classes, and only then.")
        inputs = [x, self.time_embedding(t)]
        if y is not None:
            inputs.append(functional.one_hot(y, self.n_classes).to(x.dtype))
        return self.layers(torch.cat(inputs, dim=-1))
