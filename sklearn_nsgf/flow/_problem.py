"""Entropic transport between two fixed batches of point clouds.

With ``S = x y^T / epsilon`` the plan is ``exp(S + u + w)``, where ``u`` and ``w`` gather the potentials,
the squared norms and the log-weights. Any ``w`` is a safe start: its rows, divided by their sums, are a
softmax (`_plan.Plan`). From there on Sinkhorn's iteration is two matrix-vector products a round on
scalings ``alpha`` and ``beta`` around that plan, accelerated by `_anderson.Anderson`; scalings that grow
too far from one are absorbed into ``w``. A cold start solves a subsample first
(`Problem._coarse_start`), and a small problem walks the blur down from a quarter of the data's
diameter (`_annealing`). Mass that has to cross a gap between clusters moves by a fixed factor a round,
however far it is from where it should be: an iteration that has stalled takes what groups of target points
differ by from a linear programme (`Problem._unstall`).

Potentials are reduced: ``h = g - |y|^2 / 2``, so that ``w = h / epsilon + log b``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_nsgf.flow._anderson import Anderson
from sklearn_nsgf.flow._groups import group_offsets
from sklearn_nsgf.flow._memory import Memory
from sklearn_nsgf.flow._plan import Plan, Similarity, SymmetricPlan, is_stored

_ANNEALING_TOL = 0.1
# Rounds between two looks at the size of the scalings, which grow by exp(10) a round at most.
_DRIFT_INTERVAL = 3
# Larger problems than this take a cold start from a subsample of this many points.
_COARSE_POINTS = 2048
# Rounds after which an iteration may have stalled, at first; later it is twice as many each time.
_STALL_ROUNDS = 100


class Settings(NamedTuple):
    """How problems are solved; see `sinkhorn_potentials`."""

    scaling: float
    tol: float
    max_iter: int


class Solution(NamedTuple):
    plan: Plan | SymmetricPlan
    marginal_error: Tensor
    n_iters: int


class Cloud:
    """Points with their weights.

    Parameters
    ----------
    points : Tensor of shape (..., n, d)
    log_weights : Tensor of shape (..., n)
    """

    def __init__(self, points: Tensor, log_weights: Tensor) -> None:
        self.points, self.log_weights, self.weights = points, log_weights, log_weights.exp()
        self.norms = half_squared_norms(points)

    def subsample(self, n: int, generator: torch.Generator) -> Cloud:
        rows = torch.randperm(self.points.shape[-2], generator=generator)[:n].to(self.points.device)
        return Cloud(self.points[..., rows, :], self.log_weights[..., rows].log_softmax(-1))


def half_squared_norms(points: Tensor) -> Tensor:
    return torch.linalg.vector_norm(points, dim=-1).square() / 2


def inner_products(x: Cloud, y: Cloud, memory: Memory) -> Tensor:
    """``x y^T``."""
    return torch.matmul(x.points, y.points.mT, out=memory.matrix("products", x.points, y.points))


def kept_inner_products(x: Cloud, y: Cloud, memory: Memory) -> Tensor | None:
    """``x y^T``, where a matrix so large is kept."""
    return inner_products(x, y, memory) if is_stored(x.points, y.points) else None


class Problem:
    """One batch of transport problems, to be solved at `blur` or above.

    Parameters
    ----------
    x, y : Cloud
    blur : float
    settings : Settings
    memory : Memory
        Where plans are stored: those of an earlier problem in it are lost.
    products : Tensor of shape (..., n, m), optional
        ``x y^T``, where it is kept.
    """

    def __init__(
        self, x: Cloud, y: Cloud, blur: float, settings: Settings, memory: Memory, products: Tensor | None
    ) -> None:
        self.x, self.y, self.blur, self.settings = x, y, blur, settings
        self.memory, self.products = memory, products

    def source_potential(self, solution: Solution) -> Tensor:
        """The potential f that makes the rows exact. The stored plan is lost."""
        similarity = solution.plan.similarity
        sums = similarity.logsumexp(solution.plan.log_columns())
        return self.x.norms - similarity.eps * sums

    def reduced_potential(self, solution: Solution) -> Tensor:
        """The target's potential, less the squared norms."""
        plan = solution.plan
        return plan.similarity.eps * (plan.log_columns() - self.y.log_weights)

    def target_potential(self, solution: Solution) -> Tensor:
        return self.reduced_potential(solution) + self.y.norms

    def solve(self, h: Tensor | None = None) -> Solution:
        """Solve from the reduced potential `h`, or from a cold start."""
        n_iters = 0
        if h is None:
            h, n_iters = self._cold_start()
        solution = self._solve_at(self.blur, h, self.settings.tol)
        return solution._replace(n_iters=n_iters + solution.n_iters)

    def _cold_start(self) -> tuple[Tensor, int]:
        if min(self.x.points.shape[-2], self.y.points.shape[-2]) > 2 * _COARSE_POINTS:
            return self._coarse_start()
        # What the potential tends to as the blur grows.
        mean = self.x.weights.unsqueeze(-2) @ self.x.points
        h, n_iters = -(self.y.points @ mean.mT).squeeze(-1), 0
        for annealed_blur in _annealing(self._diameter() / 4, self.blur, self.settings.scaling):
            solution = self._solve_at(annealed_blur, h, _ANNEALING_TOL)
            # The columns' sums are known: half a round more costs no product.
            residual = self.y.log_weights - solution.plan.marginal.log()
            h = self.reduced_potential(solution) + annealed_blur**2 * residual
            n_iters += solution.n_iters
        return h, n_iters

    def _coarse_start(self) -> tuple[Tensor, int]:
        """What the source potential of a random subsample implies."""
        generator, memory = torch.Generator().manual_seed(0), Memory()
        x, y = (cloud.subsample(_COARSE_POINTS, generator) for cloud in (self.x, self.y))
        settings = self.settings._replace(tol=_ANNEALING_TOL)
        coarse = Problem(x, y, self.blur, settings, memory, kept_inner_products(x, y, memory))
        solution = coarse.solve()
        f, eps = coarse.source_potential(solution), self.blur**2
        similarity = Similarity(self.y.points, x.points, eps, Memory())
        return -eps * similarity.logsumexp((f - x.norms) / eps + x.log_weights), solution.n_iters

    def _diameter(self) -> float:
        """Upper bound on the distance between any two points of the largest problem."""
        return sum(math.sqrt(2 * cloud.norms.max().item()) for cloud in (self.x, self.y))

    def _solve_at(self, blur: float, h: Tensor, tol: float) -> Solution:
        """Sinkhorn's iteration from the reduced potential `h` until the marginals are met."""
        b, log_b = self.y.weights, self.y.log_weights
        similarity = Similarity(self.x.points, self.y.points, blur**2, self.memory, self.products)
        plan = Plan(similarity, self.x.weights, b, torch.add(log_b, h, alpha=1 / blur**2))
        accelerator, next_look, last_error = Anderson(b), _STALL_ROUNDS, _l1(b)
        mass_of_a_point = 1 / max(self.x.points.shape[-2], b.shape[-1])
        for n_iters in itertools.count(1):
            error = _l1(plan.marginal - b)
            worst = error.max().item()
            if math.isnan(worst):
                break
            if 2 * n_iters == next_look:
                last_error = error
            elif n_iters == next_look:
                next_look *= 2
                is_stalled = error > (last_error / 4).clamp(min=max(tol, mass_of_a_point))
                last_error = error
                # It takes some rounds before the error is as small as it was.
                if n_iters + _STALL_ROUNDS <= self.settings.max_iter and bool(is_stalled.any()):
                    self._unstall(plan, is_stalled)
                    accelerator.forget()
                    continue
            is_over = worst <= tol or n_iters >= self.settings.max_iter
            is_time_to_look = is_over or n_iters % _DRIFT_INTERVAL == 0
            if is_time_to_look and n_iters > 1 and plan.has_drifted():
                plan.absorb()
                accelerator.forget()
                if n_iters < self.settings.max_iter:
                    continue
                error = _l1(plan.marginal - b)
            if is_over:
                break
            step = accelerator.step(plan.log_beta, log_b - plan.marginal.log())
            if error.ndim:
                step = step * (error > tol).unsqueeze(-1)
            plan.balance(plan.log_beta + step)
        return Solution(plan, error, n_iters)

    def _unstall(self, plan: Plan, is_stalled: Tensor) -> None:
        """Move groups of columns against each other, in the problems that have stalled."""
        columns = plan.log_columns().clone()
        for k in map(tuple, is_stalled.nonzero().tolist()):
            x, y = self.x.points[k], self.y.points[k]
            columns[k] += group_offsets(x, y, plan.a[k], plan.b[k], columns[k], self.blur**2)
        plan.restart(columns)

    def solve_symmetric(self) -> Solution:
        """Transport of x to itself: one potential, one scaling.

        The damped update ``q <- q (a / (q K q))^(2/3)`` contracts by 1/3 a round whatever the problem. K has
        a unit diagonal: nothing can underflow, and nothing is ever absorbed.
        """
        a = self.x.weights
        similarity = Similarity(self.x.points, self.x.points, self.blur**2, self.memory, self.products)
        plan = SymmetricPlan(similarity, self.x.norms, a)
        for n_iters in itertools.count(1):
            error = _l1(plan.marginal - a)
            worst = error.max().item()
            if worst <= self.settings.tol or n_iters == self.settings.max_iter or math.isnan(worst):
                break
            # Near the solution q exp(z) the power p gives z <- z - p (z + A z), where A is the plan with its
            # rows divided by a. Its eigenvalues s lie in [0, 1]: the factors 1 - p (1 + s) run from 1 - p to
            # 1 - 2 p, and p = 2/3 makes the larger of their sizes least, 1/3.
            plan.balance(plan.scaling * (a / plan.marginal).pow(2 / 3))
        return Solution(plan, error, n_iters)


def _l1(difference: Tensor) -> Tensor:
    return torch.linalg.vector_norm(difference, ord=1, dim=-1)


def _annealing(largest: float, blur: float, scaling: float) -> Iterator[float]:
    """Blurs above `blur`, falling from `largest` by the ratio `scaling`."""
    annealed_blur = largest
    while annealed_blur * scaling > blur:
        yield annealed_blur
        annealed_blur *= scaling
