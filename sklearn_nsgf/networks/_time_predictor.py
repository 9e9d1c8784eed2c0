"""The network that tells at which time of a straight path a point lies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

IMAGE_CHANNELS = (32, 64, 128, 256)


class TimePredictor(nn.Module):
    """Times between 0 and 1 of points of shape (n, n_features), or of images (n, C, H, W).

    For images it is the network of [1]_: four convolutions, each with a ReLU and a 2 x 2 average.

    Parameters
    ----------
    n_features : int
    hidden_layer_sizes : sequence of int
        For vectors.
    image_shape : (int, int, int), optional
        Channels, height and width of images that come as rows.

    References
    ----------
    .. [1] Zhu, Wang, Zhang, Zhao, Qian. Neural Sinkhorn Gradient Flow. arXiv:2401.14069, 2024.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.networks import TimePredictor
    >>> TimePredictor(2, (8,))(torch.rand(5, 2)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        n_features: int,
        hidden_layer_sizes: Sequence[int] = (256, 256, 256),
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if image_shape is None:
            widths = [n_features, *hidden_layer_sizes]
            for n_inputs, n_outputs in pairwise(widths):
                layers += [nn.Linear(n_inputs, n_outputs), nn.ReLU()]
        else:
            widths = [image_shape[0], *IMAGE_CHANNELS]
            layers.append(nn.Unflatten(1, image_shape))
            for n_inputs, n_outputs in pairwise(widths):
                convolution = nn.Conv2d(n_inputs, n_outputs, 3, padding=1)
                layers += [convolution, nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True)]
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.layers: nn.Sequential = nn.Sequential(*layers, nn.Linear(widths[-1], 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(-1)
