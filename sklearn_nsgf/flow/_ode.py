"""Fixed-step integrators of a velocity field."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

VelocityField = Callable[[Tensor, Tensor], Tensor]
Increment = Callable[[VelocityField, Tensor, Tensor, Tensor], Tensor]


def _euler(velocity: VelocityField, t: Tensor, x: Tensor, h: Tensor) -> Tensor:
    return velocity(t, x)


def _midpoint(velocity: VelocityField, t: Tensor, x: Tensor, h: Tensor) -> Tensor:
    middle = x + _rows(h / 2, x) * velocity(t, x)
    return velocity(t + h / 2, middle)


def _heun(velocity: VelocityField, t: Tensor, x: Tensor, h: Tensor) -> Tensor:
    first = velocity(t, x)
    second = velocity(t + h, x + _rows(h, x) * first)
    return (first + second) / 2


def _rk4(velocity: VelocityField, t: Tensor, x: Tensor, h: Tensor) -> Tensor:
    half = _rows(h / 2, x)
    first = velocity(t, x)
    second = velocity(t + h / 2, x + half * first)
    third = velocity(t + h / 2, x + half * second)
    fourth = velocity(t + h, x + 2 * half * third)
    return (first + 2 * second + 2 * third + fourth) / 6


SOLVERS: dict[str, Increment] = {
    "euler": _euler,
    "midpoint": _midpoint,
    "heun": _heun,
    "rk4": _rk4,
}
# Evaluations of the velocity in one step.
N_EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


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
    if n_steps < 1 or solver not in SOLVERS:
        raise ValueError(
            f"n_steps={n_steps}, solver={solver!r}: expected at least one step and one of {sorted(SOLVERS)}."
        )
    increment = SOLVERS[solver]
    start = torch.as_tensor(t_start, dtype=x.dtype, device=x.device).expand(x.shape[0])
    end = torch.as_tensor(t_end, dtype=x.dtype, device=x.device).expand(x.shape[0])
    h = (end - start) / n_steps
    path = [x]
    for k in range(n_steps):
        x = x + _rows(h, x) * increment(velocity, start + k * h, x, h)
        if return_path:
            path.append(x)
    return torch.stack(path) if return_path else x
