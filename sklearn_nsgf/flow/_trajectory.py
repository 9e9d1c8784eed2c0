"""The Sinkhorn flow simulated on particles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_nsgf._torch import full_precision
from sklearn_nsgf.flow._memory import kept_memory
from sklearn_nsgf.flow._particles import Particles

StepSize = str | float | Sequence[float]
Blur = float | tuple[float, float]


class Trajectory(NamedTuple):
    """Particles along the flow.

    Attributes
    ----------
    t : Tensor of shape (n_steps + 1,)
        Times, from 0 to 1 in equal parts.
    x : Tensor of shape (n_steps + 1, ..., n, d)
        Positions at those times.
    step_sizes : Tensor of shape (n_steps,)
        The steps eta_k.
    converged : bool Tensor of shape (n_steps, ...)
    marginal_error : Tensor of shape (n_steps, ...)
    """

    t: Tensor
    x: Tensor
    step_sizes: Tensor
    converged: Tensor
    marginal_error: Tensor

    @property
    def v(self) -> Tensor:
        """Sinkhorn velocities at the positions but the last, ``(x[k + 1] - x[k]) / step_sizes[k]``.

        With the rounding of the positions; `sinkhorn_velocity` has that of the velocity.
        """
        return self.x.diff(dim=0) / self.step_sizes.reshape(-1, *[1] * (self.x.ndim - 1))


def step_sizes(step_size: StepSize, n_steps: int) -> np.ndarray:
    """The sizes of the steps that `step_size` stands for.

    Parameters
    ----------
    step_size : "harmonic", float or sequence of n_steps floats
        "harmonic" is ``1 / (T - k)``: for a small blur each step then covers an equal part of a
        particle's way and the last one ends on the target. A float is the paper's constant step.
    n_steps : int

    Returns
    -------
    ndarray of shape (n_steps,)
        Each in (0, 1].

    Examples
    --------
    >>> from sklearn_nsgf.flow import step_sizes
    >>> step_sizes("harmonic", 4)
    array([0.25      , 0.33333333, 0.5       , 1.        ])
    """
    if n_steps < 1:
        raise ValueError(f"n_steps={n_steps}: expected at least one step.")
    if isinstance(step_size, str):
        if step_size != "harmonic":
            raise ValueError(f"step_size={step_size!r} is unknown; use 'harmonic', a number or a sequence.")
        return 1 / np.arange(n_steps, 0, -1)
    sizes = np.asarray(step_size, dtype=float)
    if sizes.ndim == 0:
        sizes = np.full(n_steps, sizes)
    if sizes.shape != (n_steps,):
        raise ValueError(
            f"step_size has shape {sizes.shape}; expected one number for each of the n_steps={n_steps} steps."
        )
    if not np.all((sizes > 0) & (sizes <= 1)):
        raise ValueError(f"step_size={step_size!r} has values outside (0, 1].")
    return sizes


def blur_schedule(blur: Blur, n_steps: int) -> np.ndarray:
    """Blur of each step: constant, or falling geometrically from the first to the last of a pair.

    Examples
    --------
    >>> from sklearn_nsgf.flow import blur_schedule
    >>> blur_schedule((1.0, 0.25), 3)
    array([1.  , 0.5 , 0.25])
    """
    blurs = np.ravel(blur).astype(float)
    if len(blurs) not in (1, 2) or not np.all((blurs > 0) & (blurs < np.inf)):
        raise ValueError(f"blur={blur!r} must be a positive number or a pair (first, last) of them.")
    first, last = blurs[0], blurs[-1]
    if first < last:
        raise ValueError(f"blur={blur!r} rises along the flow; give the larger one first.")
    if n_steps == 1:
        return np.array([last])
    return np.geomspace(first, last, n_steps)


@full_precision
@torch.no_grad()
def particle_flow(
    x: Tensor,
    y: Tensor,
    *,
    blur: Blur,
    n_steps: int,
    step_size: StepSize = "harmonic",
    scaling: float = 0.5,
    tol: float = 1e-3,
    max_iter: int = 1000,
) -> Trajectory:
    r"""Move the particles `x` along the Sinkhorn flow to `y`.

    This is the first part of Algorithm 1 of [1]_, ``x_{k+1} = x_k + eta_k v(x_k)``. Every step starts its
    Sinkhorn iteration from the last one's potential ``g``: the flow contracts the particles' remaining way
    by ``1 - eta_k``, and with it the distance of ``g`` to the target's own potential.

    Parameters
    ----------
    x : Tensor of shape (..., n, d)
        Source points.
    y : Tensor of shape (..., m, d)
        Target points.
    blur : float or (float, float)
        One blur, or the first and the last one; in units of the data.
    n_steps : int
        Number of steps T.
    step_size : "harmonic", float or sequence, default="harmonic"
        See `step_sizes`.
    scaling, tol, max_iter
        As in `sinkhorn_velocity`, at every step. A tolerance that is loose in the first steps sends
        particles to the wrong cluster of the target, and it takes many rounds to call them back.

    Returns
    -------
    Trajectory

    References
    ----------
    .. [1] Zhu, Wang, Zhang, Zhao, Qian. Neural Sinkhorn Gradient Flow. arXiv:2401.14069, 2024.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.flow import particle_flow
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> particle_flow(x, x + 3.0, blur=0.1, n_steps=3).x[:, 0]
    tensor([[0., 0.],
            [1., 1.],
            [2., 2.],
            [3., 3.]])
    """
    etas, blurs = step_sizes(step_size, n_steps), blur_schedule(blur, n_steps).tolist()
    positions, errors = x.new_empty(n_steps + 1, *x.shape), x.new_empty(n_steps, *x.shape[:-2])
    positions[0] = x
    # Nothing that is made in there gets out: autograd could not use it.
    with torch.inference_mode(), kept_memory(x, y) as memory:
        particles = Particles(
            x, y, blur=min(blurs), scaling=scaling, tol=tol, max_iter=max_iter, memory=memory
        )
        own = {each: particles.own_potential_of_target(each) for each in set(blurs)}
        h: Tensor | None = None
        for k, eta in enumerate(etas.tolist()):
            particles.solve(blurs[k], h)
            particles.move(eta)
            torch.add(particles.cloud.points, particles.centre, out=positions[k + 1])
            errors[k] = particles.marginal_error
            if k + 1 < n_steps:
                h = torch.add(own[blurs[k + 1]], particles.h - own[blurs[k]], alpha=1 - eta)
    return Trajectory(
        torch.linspace(0, 1, n_steps + 1, dtype=x.dtype, device=x.device),
        positions,
        x.new_tensor(etas.tolist()),
        errors <= tol,
        errors,
    )
