"""Anderson acceleration."""

from __future__ import annotations

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
        shape = (*weights.shape[:-1], self.memory, weights.shape[-1])
        # Differences of the plain steps' ends, and of the weighted residuals.
        self.end_differences = weights.new_zeros(shape)
        self.residual_differences = weights.new_zeros(shape)
        self.n_steps = self.n_differences = 0
        self.last: tuple[Tensor, Tensor] | None = None

    def forget_origin(self) -> None:
        """The next point counts from another origin; the differences so far stay valid."""
        self.last = None

    def step(self, point: Tensor, residual: Tensor) -> Tensor:
        """Return the step to the next point."""
        end, weighted = point + residual, residual * self.root_weights
        if self.last is not None:
            place = self.n_differences % self.memory
            torch.sub(end, self.last[0], out=self.end_differences[..., place, :])
            torch.sub(weighted, self.last[1], out=self.residual_differences[..., place, :])
            self.n_differences += 1
        self.last = end, weighted
        self.n_steps += 1
        if self.n_steps % self.period == 0 and self.n_differences:
            step = self._combined(residual, weighted)
        else:
            step = self.relaxation * residual
        return step.clamp(-self.largest_step, self.largest_step)

    def _combined(self, residual: Tensor, weighted: Tensor) -> Tensor:
        n_used = min(self.n_differences, self.memory)
        differences = self.residual_differences[..., :n_used, :]
        gram = differences @ differences.mT
        # Keeps the system solvable: absolutely, and relative to the rounding in it.
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        precision = torch.finfo(gram.dtype)
        diagonal += 10 * precision.eps * diagonal.sum(-1, keepdim=True) + precision.tiny
        coefficients = torch.linalg.solve(gram, differences @ weighted.unsqueeze(-1))
        step = residual - (self.end_differences[..., :n_used, :].mT @ coefficients).squeeze(-1)
        ascends = (weighted * self.root_weights * step).sum(-1, keepdim=True) > 0
        return torch.where(ascends, step, residual)
