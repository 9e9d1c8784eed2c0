"""One leg of a learnt flow: its networks, how they were learnt, and their evaluation on arrays."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_nsgf._torch import Chunks, RandomStream, inference_dtype
from sklearn_nsgf.networks import ImageRows, TimePredictor, make_network

# Rows that go through a network at a time: at most so many, and at most so many numbers.
_CHUNK_ROWS, _CHUNK_SIZE = 16_384, 2**18


class Curves(NamedTuple):
    """Course of one or more trainings.

    Attributes
    ----------
    loss, validation : list of float
    loss_steps, validation_steps : list of int
        Optimiser steps at which the values were taken.
    n_iter : int
        Optimiser steps in all.
    n_kept : int
        Optimiser steps of the network that was kept; 0 if it is better to have none.
    """

    loss: list[float]
    validation: list[float]
    loss_steps: list[int]
    validation_steps: list[int]
    n_iter: int
    n_kept: int

    def then(self, later: Curves) -> Curves:
        """These curves and then those of a later training."""
        return Curves(
            self.loss + later.loss,
            self.validation + later.validation,
            self.loss_steps + [self.n_iter + step for step in later.loss_steps],
            self.validation_steps + [self.n_iter + step for step in later.validation_steps],
            self.n_iter + later.n_iter,
            self.n_iter + later.n_kept if later.n_kept else self.n_kept,
        )


class Leg:
    """A velocity field that was learnt. It is never changed, but followed or learnt anew.

    Its state holds weights as arrays: a file from a machine with a GPU opens on one without, and skops
    knows what it is.

    Parameters
    ----------
    network : Module
        On the CPU, in float32, in evaluation mode.
    architecture : dict
        Arguments of `make_network` for another one like it.
    curves : Curves
    blur : float or (float, float)
        Of the plans it was learnt from, in the units of the flow.
    n_phases : int
        Equal parts of its time, each followed in a number of steps of its own.
    time_predictor : Module or None
        Tells at which time a point enters, where that depends on the point.
    predictor_sizes : tuple of int
        Widths of the predictor's layers.
    """

    def __init__(
        self,
        network: nn.Module,
        architecture: dict[str, Any],
        curves: Curves,
        blur: float | tuple[float, float],
        *,
        n_phases: int = 1,
        time_predictor: nn.Module | None = None,
        predictor_sizes: tuple[int, ...] = (),
    ) -> None:
        self.network, self.architecture, self.curves, self.blur = network, architecture, curves, blur
        self.n_phases = n_phases
        self.time_predictor, self.predictor_sizes = time_predictor, predictor_sizes

    @property
    def is_at_rest(self) -> bool:
        """Whether no network is better than any that was learnt: the leg leaves points where they are."""
        return self.curves.n_kept == 0

    def alone(self) -> Leg:
        """The same field, entered at time 0 by all points."""
        return Leg(self.network, self.architecture, self.curves, self.blur)

    def on(self, device: torch.device, dtype: np.dtype) -> NetworkOnRows:
        """The velocity network, ready for rows of `dtype`."""
        network: nn.Module = _AtRest()
        if not self.is_at_rest:
            network = on_rows(copy.deepcopy(self.network), self.architecture["event_shape"], device)
        return NetworkOnRows(network, device, dtype)

    def predictor_on(self, device: torch.device, dtype: np.dtype) -> NetworkOnRows:
        """The time predictor, ready for rows of `dtype`."""
        assert self.time_predictor is not None
        return NetworkOnRows(copy.deepcopy(self.time_predictor), device, dtype)

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self) | {"network": _to_arrays(self.network)}
        if self.time_predictor is not None:
            state["time_predictor"] = _to_arrays(self.time_predictor)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.network = _with_arrays(make_network(**self.architecture), state["network"])
        if state["time_predictor"] is not None:
            event_shape = self.architecture["event_shape"]
            predictor = new_time_predictor(event_shape, self.predictor_sizes, seed=0)
            self.time_predictor = _with_arrays(predictor, state["time_predictor"])


class _AtRest(nn.Module):
    """Moves nothing."""

    def forward(self, t: Tensor, x: Tensor, *classes: Tensor) -> Tensor:
        return torch.zeros_like(x)


class NetworkOnRows:
    """A network on its device and in its precision, applied to arrays chunk by chunk.

    Parameters
    ----------
    network : Module
        On rows. It is moved, and set to evaluation.
    device : torch device
    dtype : dtype
        That of the arrays.
    """

    def __init__(self, network: nn.Module, device: torch.device, dtype: np.dtype) -> None:
        self.device, self.dtype = device, inference_dtype(dtype, device)
        self.network = network.to(device, self.dtype).eval()
        self.chunks: Chunks[np.ndarray] = Chunks(
            "rows", "Not even one row fits: free memory there, or set device='cpu'."
        )

    @torch.no_grad()
    def __call__(self, answer: Callable[..., Tensor], *arrays: np.ndarray, axis: int = 0) -> np.ndarray:
        """Apply `answer(network, *rows)` to chunks of the arrays' rows and join the results."""
        n_rows = min(_CHUNK_ROWS, max(1, _CHUNK_SIZE // arrays[0][0].size))

        def answer_chunk(rows: slice) -> np.ndarray:
            return answer(self.network, *(self._to_tensor(array[rows]) for array in arrays)).cpu().numpy()

        return np.concatenate(self.chunks(answer_chunk, len(arrays[0]), n_rows), axis=axis)

    def _to_tensor(self, array: np.ndarray) -> Tensor:
        # Class indices stay whole numbers.
        return torch.tensor(array).to(self.device, self.dtype if array.dtype.kind == "f" else torch.long)


def on_rows(network: nn.Module, event_shape: tuple[int, ...], device: torch.device) -> nn.Module:
    """The network on its device, for images one that takes them as rows."""
    network = ImageRows(network, event_shape, device) if len(event_shape) == 3 else network
    return network.to(device)


def bare(network: nn.Module) -> nn.Module:
    """The network that `on_rows` was given."""
    return network.network if isinstance(network, ImageRows) else network


def new_time_predictor(
    event_shape: tuple[int, ...], hidden_layer_sizes: tuple[int, ...], *, seed: int
) -> TimePredictor:
    """A time predictor for points of that shape, which come as rows."""
    image_shape = event_shape if len(event_shape) == 3 else None
    with RandomStream(seed).turn():
        return TimePredictor(math.prod(event_shape), hidden_layer_sizes, image_shape)


def _to_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy(force=True) for name, tensor in network.state_dict().items()}


def _with_arrays(network: nn.Module, arrays: dict[str, np.ndarray]) -> nn.Module:
    network.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return network.eval()
