"""Fixed-step integrators of a velocity field."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

VelocityField = Callable[[Tensor, Tensor], Tensor]


class Tableau(NamedTuple):
    """Butcher tableau of an explicit solver whose stages each start from the one before alone.

    ``k_i = v(t + c_i h, x + c_i h k_{i-1})`` and ``x(t + h) = x + h sum_i b_i k_i / sum_i b_i``.

    Attributes
    ----------
    nodes : tuple of float
        The numbers c, zero first. Each is also the only entry of its row of the matrix.
    weights : tuple of int
        The numbers b, in proportion.
    """

    nodes: tuple[float, ...]
    weights: tuple[int, ...]


SOLVERS = {
    "euler": Tableau((0,), (1,)),
    "midpoint": Tableau((0, 1 / 2), (0, 1)),
    "heun": Tableau((0, 1), (1, 1)),
    "rk4": Tableau((0, 1 / 2, 1 / 2, 1), (1, 2, 2, 1)),
}


def n_evaluations(solver: str) -> int:
    """Evaluations of the velocity in one step of `odeint`.

    Examples
    --------
    >>> from sklearn_nsgf.flow import n_evaluations
    >>> n_evaluations("rk4")
    4
    """
    return len(_tableau(solver).nodes)


def _tableau(solver: str) -> Tableau:
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r} is unknown; use one of {sorted(SOLVERS)}.")
    return SOLVERS[solver]


def _increment(velocity: VelocityField, t: Tensor, x: Tensor, h: Tensor, tableau: Tableau) -> Tensor:
    """The mean of the velocities at the stages of one step."""
    stages = [velocity(t, x)]
    for node in tableau.nodes[1:]:
        stages.append(velocity(t + node * h, x + _rows(node * h, x) * stages[-1]))
    terms = [weight * stage for weight, stage in zip(tableau.weights, stages, strict=True) if weight]
    return sum(terms[1:], terms[0]) / sum(tableau.weights)


def _rows(h: Tensor, x: Tensor) -> Tensor:
    return h.view(-1, *[1] * (x.ndim - 1))


def odeint(
    velocity: VelocityField,
    x: Tensor,
    *,
    n_steps: int,
    t_start: float | Tensor = 0.0,
    t_end: float | Tensor = 1.0,
    solver: str = "euler",
    return_path: bool = False,
) -> Tensor:
    """Integrate ``dx/dt = velocity(t, x)`` with steps of equal length.

    Parameters
    ----------
    velocity : callable
        Takes times of shape (n,) and points of shape (n, ...); returns velocities (n, ...).
    x : Tensor of shape (n, ...)
        Points at `t_start`.
    n_steps : int
        Number of steps.
    t_start, t_end : float or Tensor of shape (n,)
        Every row may have times of its own; its step is ``(t_end - t_start) / n_steps``, negative
        to go backwards.
    solver : {"euler", "midpoint", "heun", "rk4"}, default="euler"
        Of order 1, 2, 2 and 4, with 1, 2, 2 and 4 evaluations of the velocity a step.
    return_path : bool, default=False

    Returns
    -------
    Tensor of shape (n, ...), or (n_steps + 1, n, ...) with `return_path`

    Raises
    ------
    ValueError
        If `n_steps` is not positive or `solver` is unknown.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.flow import odeint
    >>> odeint(lambda t, x: x, torch.ones(1), n_steps=10, solver="rk4")  # e = 2.71828...
    tensor([2.7183])
    """
    tableau = _tableau(solver)
    if n_steps < 1:
        raise ValueError(f"n_steps={n_steps}: expected at least one step.")
    start = torch.as_tensor(t_start, dtype=x.dtype, device=x.device).expand(x.shape[0])
    end = torch.as_tensor(t_end, dtype=x.dtype, device=x.device).expand(x.shape[0])
    h = (end - start) / n_steps
    path = [x]
    for k in range(n_steps):
        x = x + _rows(h, x) * _increment(velocity, start + k * h, x, h, tableau)
        if return_path:
            path.append(x)
    return torch.stack(path) if return_path else x
