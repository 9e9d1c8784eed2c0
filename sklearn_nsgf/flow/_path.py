"""Straight paths between paired points: what a velocity network is trained on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PathSample(NamedTuple):
    """Points on paths, with the velocity that a network should learn there.

    Attributes
    ----------
    t : Tensor of shape (n,)
        Times, between 0 (source) and 1 (target).
    x_t : Tensor of shape (n, ...)
    v_t : Tensor of shape (n, ...)
        dx/dt at `t`.
    labels : Tensor of shape (n,) or None
        Index of each point's class, where the velocity depends on it.
    """

    t: Tensor
    x_t: Tensor
    v_t: Tensor
    labels: Tensor | None = None


def straight_path(
    x_start: Tensor, x_end: Tensor, t_start: Tensor, t_end: Tensor, fraction: Tensor
) -> PathSample:
    """Points on the segments from `x_start` at `t_start` to `x_end` at `t_end`.

    Parameters
    ----------
    x_start, x_end : Tensor of shape (n, ...)
    t_start, t_end : Tensor of shape (n,)
    fraction : Tensor of shape (n,)
        How far along its segment each point lies, between 0 and 1.

    Returns
    -------
    PathSample

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.flow import straight_path
    >>> zero, half, one = torch.tensor([0.0]), torch.tensor([0.5]), torch.tensor([1.0])
    >>> straight_path(torch.tensor([[0.0]]), torch.tensor([[3.0]]), half, one, zero)
    PathSample(t=tensor([0.5000]), x_t=tensor([[0.]]), v_t=tensor([[6.]]), labels=None)
    """
    per_row = (-1, *[1] * (x_start.ndim - 1))
    step = x_end - x_start
    t = t_start + fraction * (t_end - t_start)
    x_t = x_start + fraction.view(per_row) * step
    return PathSample(t, x_t, step / (t_end - t_start).view(per_row))
