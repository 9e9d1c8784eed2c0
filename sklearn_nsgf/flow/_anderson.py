"""Anderson acceleration."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor


class Anderson:
    """Anderson acceleration of a fixed-point iteration ``z <- z + residual(z)``.

    Every `period`-th step combines the last few so that the combined residual is smallest in the
    weighted norm [1]_; the others are over-relaxed, which costs a fraction and converges in as many
    rounds [2]_. Where rounding makes a combined step point away from the residual the plain one is taken.
    No component moves more than `largest_step`.

    Parameters
    ----------
    weights : Tensor of shape (..., m)
        Weights of the norm. Leading dimensions are independent problems.

    References
    ----------
    .. [1] Walker, Ni. Anderson Acceleration for Fixed-Point Iterations. SIAM Journal on Numerical
       Analysis 49(4), 2011.
    .. [2] Pratapa, Suryanarayana, Pask. Anderson Acceleration of the Jacobi Iterative Method. Journal of
       Computational Physics 306, 2016.
    """

    memory = 5
    period = 3
    relaxation = 1.5
    largest_step = 10.0

    def __init__(self, weights: Tensor) -> None:
        self.root_weights = weights.sqrt()
        self.points: deque[Tensor] = deque(maxlen=self.memory + 1)
        self.residuals: deque[Tensor] = deque(maxlen=self.memory + 1)
        self.n_steps = 0

    def forget(self) -> None:
        """Start afresh: points so far and to come do not belong together."""
        self.points.clear()
        self.residuals.clear()

    def step(self, point: Tensor, residual: Tensor) -> Tensor:
        """Return the step to the next point."""
        self.points.append(point)
        self.residuals.append(residual)
        self.n_steps += 1
        if self.n_steps % self.period == 0 and len(self.points) > 1:
            step = self._combined(residual)
        else:
            step = self.relaxation * residual
        return step.clamp_(-self.largest_step, self.largest_step)

    def _combined(self, residual: Tensor) -> Tensor:
        residuals = torch.stack(tuple(self.residuals), -2)
        end_differences = (torch.stack(tuple(self.points), -2) + residuals).diff(dim=-2)
        weighted = residual * self.root_weights
        differences = (residuals * self.root_weights.unsqueeze(-2)).diff(dim=-2)
        gram = differences @ differences.mT
        # Keeps the system solvable: absolutely, and relative to the rounding in it.
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        precision = torch.finfo(gram.dtype)
        diagonal += 10 * precision.eps * diagonal.sum(-1, keepdim=True) + precision.tiny
        # Without the check for a singular matrix, which would wait for a GPU.
        coefficients, _ = torch.linalg.solve_ex(gram, differences @ weighted.unsqueeze(-1))
        step = residual - (end_differences.mT @ coefficients).squeeze(-1)
        ascends = (weighted * self.root_weights * step).sum(-1, keepdim=True) > 0
        return torch.where(ascends, step, residual)
