"""From what a user gives as `network` to a module that fits the data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import nn

from sklearn_nsgf._torch import isolated_rng
from sklearn_nsgf.networks._mlp import MLP

NetworkFactory = Callable[[int], nn.Module]


def make_network(
    n_features: int,
    *,
    network: nn.Module | NetworkFactory | None = None,
    hidden_layer_sizes: Sequence[int] = (256, 256, 256),
    seed: int = 0,
) -> nn.Module:
    """Return a velocity network for points of `n_features` features.

    Parameters
    ----------
    n_features : int
    network : Module, callable or None, default=None
        A module is copied, a callable is called with `n_features`, None makes an `MLP`.
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
        Widths of the `MLP`; not used with a `network`.
    seed : int, default=0
        Seeds the initial parameters, also those that a callable makes.

    Raises
    ------
    ValueError
        If a size is not positive, or if the network does not take times (n,) and points
        (n, n_features) to velocities of the points' shape.

    Examples
    --------
    >>> from sklearn_nsgf.networks import make_network
    >>> sum(parameter.numel() for parameter in make_network(2).parameters())
    135170
    """
    if not all(isinstance(size, Integral) and size >= 1 for size in hidden_layer_sizes):
        raise ValueError(f"hidden_layer_sizes={hidden_layer_sizes!r} must be positive integers.")
    with isolated_rng(seed):
        if network is None:
            return MLP(n_features, hidden_layer_sizes)
        made = copy.deepcopy(network) if isinstance(network, nn.Module) else network(n_features)
        _probe(made, n_features)
    return made


def _probe(network: nn.Module, n_features: int) -> None:
    expected = (
        f"network must map times t of shape (n,) and points x of shape (n, {n_features}) to "
        f"velocities of shape (n, {n_features}) when called as network(t, x)"
    )
    if not isinstance(network, nn.Module):
        raise ValueError(f"{expected}; got a {type(network).__name__}, not a torch.nn.Module.")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"{expected}; it has no parameters to train.")
    try:
        with torch.no_grad():
            answer = network(torch.zeros(2), torch.zeros(2, n_features))
            in_double = copy.deepcopy(network).double()
            in_double(torch.zeros(2).double(), torch.zeros(2, n_features).double())
    except Exception as error:
        raise ValueError(f"{expected}; calling it raised {error!r}.") from error
    shape = getattr(answer, "shape", None)
    if shape != (2, n_features):
        raise ValueError(f"{expected}; for n=2 it returned {shape or type(answer).__name__}.")
