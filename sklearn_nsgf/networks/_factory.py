"""From what a user gives as `network` to a module that fits the data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from sklearn_nsgf._torch import RandomStream
from sklearn_nsgf.networks._mlp import MLP
from sklearn_nsgf.networks._unet import UNet

EventShape = tuple[int] | tuple[int, int, int]
NetworkFactory = Callable[..., nn.Module]


def make_network(
    event_shape: EventShape,
    *,
    network: nn.Module | NetworkFactory | None = None,
    hidden_layer_sizes: Sequence[int] = (256, 256, 256),
    n_classes: int = 0,
    seed: int = 0,
) -> nn.Module:
    """Return a velocity network for points of shape `event_shape`.

    Parameters
    ----------
    event_shape : (int,) or (int, int, int)
        Number of features; or channels, height and width of images.
    network : Module, callable or None, default=None
        A module is copied, a callable is called with `event_shape`, and with `n_classes` if there are
        classes, None makes an `MLP` for vectors and a `UNet` for images.
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
        Widths of the `MLP`; not used otherwise.
    n_classes : int, default=0
        Number of classes that the velocity depends on. With any, the network is called as
        ``network(t, x, y)`` with their indices.
    seed : int, default=0
        Seeds the initial parameters, also those that a callable makes.

    Raises
    ------
    ValueError
        If a size is not positive, or if the network does not take times (n,) and points
        of shape ``(n, *event_shape)`` to velocities of the same shape.

    Examples
    --------
    >>> from sklearn_nsgf.networks import make_network
    >>> sum(parameter.numel() for parameter in make_network((2,)).parameters())
    135170
    """
    if not all(isinstance(size, Integral) and size >= 1 for size in hidden_layer_sizes):
        raise ValueError(f"hidden_layer_sizes={hidden_layer_sizes!r} must be positive integers.")
    with RandomStream(seed).turn():
        if network is None:
            if len(event_shape) == 3:
                return UNet(event_shape, n_classes=n_classes)
            return MLP(event_shape[0], hidden_layer_sizes, n_classes)
        if isinstance(network, nn.Module):
            made = copy.deepcopy(network)
        else:
            made = network(event_shape, n_classes) if n_classes else network(event_shape)
        _probe(made, event_shape, n_classes)
    return made


class ImageRows(nn.Module):
    """A network on images as the flow sees it: rows in, rows out.

    Training runs in bfloat16 where autocast does that: on CUDA, which has its channels last, and for a `UNet`
    on a CPU with instructions for it.

    Parameters
    ----------
    network : Module
    image_shape : (int, int, int)
        Channels, height and width.
    device : torch device, default="cpu"
        Where it will run.
    """

    def __init__(
        self, network: nn.Module, image_shape: tuple[int, int, int], device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        kind = torch.device(device).type
        self.layout: torch.memory_format = torch.channels_last if kind == "cuda" else torch.contiguous_format
        self.network: nn.Module = nn.utils.convert_conv2d_weight_memory_format(network, self.layout)
        self.image_shape = image_shape
        self.in_bfloat16: bool = kind == "cuda" or (
            kind == "cpu" and isinstance(network, UNet) and _cpu_has_bfloat16()
        )

    def forward(self, t: Tensor, x: Tensor, *classes: Tensor) -> Tensor:
        images = x.unflatten(-1, self.image_shape).contiguous(memory_format=self.layout)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training and self.in_bfloat16):
            velocity = self.network(t, images, *classes)
        return velocity.to(x.dtype).flatten(1)


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16: without its instructions that is slower than float32."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # of torch from 2.6 on
    return any(getattr(torch.cpu, name, bool)() for name in names)


def _probe(network: nn.Module, event_shape: EventShape, n_classes: int) -> None:
    points = f"(n, {', '.join(map(str, event_shape))})"
    classes = f", class indices y below {n_classes} of shape (n,)" if n_classes else ""
    call = "network(t, x, y)" if n_classes else "network(t, x)"
    expected = (
        f"network must map times t of shape (n,), points x of shape {points}{classes} to "
        f"velocities of shape {points} when called as {call}"
    )
    if not isinstance(network, nn.Module):
        raise ValueError(f"{expected}; got a {type(network).__name__}, not a torch.nn.Module.")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"{expected}; it has no parameters to train.")
    t, x = torch.zeros(2), torch.zeros(2, *event_shape)
    y = [torch.tensor([0, n_classes - 1])] if n_classes else []
    try:
        # On a copy: batch statistics, counters and the like must not move.
        probed = copy.deepcopy(network).eval()
        with torch.no_grad():
            answer = probed(t, x, *y)
            probed.double()(t.double(), x.double(), *y)
    except Exception as error:
        raise ValueError(
            f"{expected}, in float32 for training and in float64 for float64 data; calling it raised "
            f"{error!r}."
        ) from error
    shape = getattr(answer, "shape", None)
    if shape != x.shape:
        raise ValueError(f"{expected}; for n=2 it returned {shape or type(answer).__name__}.")
