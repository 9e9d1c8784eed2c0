"""Entropic optimal transport between batches of point clouds.

Conventions, those of GeomLoss with ``p=2``: the cost is ``|x - y|^2 / 2`` and the
temperature is ``epsilon = blur^2``. In POT's units ``reg = 2 * blur^2``.

How a problem is solved. With ``S = x y^T / epsilon`` the plan is ``exp(S + u + w)``, where ``u`` and
``w`` gather the potentials, the squared norms and the log-weights. Any ``w`` is a safe start: its rows,
divided by their sums, are a softmax (`_plan.Plan`). From there on Sinkhorn's iteration is two matrix-vector
products a round on scalings ``alpha`` and ``beta`` around that plan, accelerated by `_anderson.Anderson`;
scalings that grow too far from one are absorbed into ``w``. A cold start solves a subsample first
(`_Problem._coarse_start`), and a small problem walks the blur down from a quarter of the data's
diameter (`_annealing`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_nsgf.flow._anderson import Anderson
from sklearn_nsgf.flow._plan import Memory, Plan, Similarity, SymmetricPlan, is_stored

_ANNEALING_TOL = 0.1
# Rounds between two looks at the size of the scalings, which grow by exp(10) a round at most.
_DRIFT_INTERVAL = 3
# Larger problems than this take a cold start from a subsample of this many points.
_COARSE_POINTS = 2048
# Clouds so large beside the blur that the plan's entries would be off by more are solved in float64.
_LARGEST_ROUNDING = 0.01
# So is what has to be closer than sums of float32 numbers are.
_SMALLEST_SINGLE_TOL = 1e-4
# A weight of zero counts as exp(-40), 4e-18.
_SMALLEST_LOG_WEIGHT = -40.0


class SinkhornPotentials(NamedTuple):
    """Potentials of an entropic transport problem, and how well they solve it.

    Attributes
    ----------
    f : Tensor of shape (..., n)
        Source potential, in squared units of the data.
    g : Tensor of shape (..., m)
        Target potential.
    converged : bool Tensor of shape (...)
        Whether the marginal error is at most the tolerance, problem by problem.
    n_iters : int
        Rounds of Sinkhorn's iteration that were run, annealing included.
    marginal_error : Tensor of shape (...)
        L1 distance between the plan's marginals and the weights, between 0 and 2.
    """

    f: Tensor
    g: Tensor
    converged: Tensor
    n_iters: int
    marginal_error: Tensor


class SinkhornVelocity(NamedTuple):
    """Velocity of the Sinkhorn flow on a batch of clouds; see `sinkhorn_velocity`.

    Attributes
    ----------
    v : Tensor of shape (..., n, d)
        Velocity of every source point, in units of the data.
    g : Tensor of shape (..., m)
        Target potential, to start the next step from.
    converged : bool Tensor of shape (...)
    n_iters : int
    marginal_error : Tensor of shape (...)
        The larger of the two problems' errors.
    """

    v: Tensor
    g: Tensor
    converged: Tensor
    n_iters: int
    marginal_error: Tensor


class _Solution(NamedTuple):
    plan: Plan | SymmetricPlan
    marginal_error: Tensor
    n_iters: int


@torch.no_grad()
def sinkhorn_potentials(
    x: Tensor,
    y: Tensor,
    *,
    blur: float,
    a: Tensor | None = None,
    b: Tensor | None = None,
    scaling: float = 0.5,
    tol: float = 1e-3,
    max_iter: int = 1000,
    g_init: Tensor | None = None,
) -> SinkhornPotentials:
    r"""Dual potentials of entropic optimal transport.

    They maximise ``<a, f> + <b, g> - eps <a (x) b, exp((f + g - |x-y|^2/2) / eps) - 1>``
    with ``eps = blur**2``.

    Parameters
    ----------
    x : Tensor of shape (..., n, d)
        Source points. Leading dimensions are independent problems.
    y : Tensor of shape (..., m, d)
        Target points.
    blur : float
        Square root of the temperature, in units of the data.
    a, b : Tensor of shape (..., n) and (..., m), optional
        Non-negative weights that sum to one; uniform by default.
    scaling : float, default=0.5
        Ratio of the annealing: a cold start solves at blurs that fall by this factor from a
        quarter of the data's diameter down to `blur`. Values closer to 1 are slower and safer.
    tol : float, default=1e-3
        Largest L1 error of the marginals.
    max_iter : int, default=1000
        Bound on the rounds at the final blur, and at each annealed one.
    g_init : Tensor of shape (..., m), optional
        Target potential to start from, instead of annealing.

    Returns
    -------
    SinkhornPotentials

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.flow import sinkhorn_potentials
    >>> x, y = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
    >>> f, g, converged, *_ = sinkhorn_potentials(x, y, blur=0.1)
    >>> float(f.sum() + g.sum())  # one point to one point: half the squared distance
    12.5
    """
    return Solver(y, b, scaling, tol, max_iter).potentials(x, a, blur, _checked_start(g_init))


@torch.no_grad()
def symmetric_potential(
    x: Tensor, *, blur: float, a: Tensor | None = None, tol: float = 1e-3, max_iter: int = 1000
) -> SinkhornPotentials:
    r"""Potential of the transport of a cloud to itself.

    Parameters
    ----------
    x : Tensor of shape (..., n, d)
    blur, a, tol, max_iter
        As in `sinkhorn_potentials`.

    Returns
    -------
    SinkhornPotentials
        With ``f`` equal to ``g``.
    """
    return Solver(x, a, tol=tol, max_iter=max_iter).own_potential(blur)


@torch.no_grad()
def sinkhorn_velocity(
    x: Tensor,
    y: Tensor,
    *,
    blur: float,
    a: Tensor | None = None,
    b: Tensor | None = None,
    scaling: float = 0.5,
    tol: float = 1e-3,
    max_iter: int = 1000,
    g_init: Tensor | None = None,
) -> SinkhornVelocity:
    r"""Velocity of the Wasserstein gradient flow of the Sinkhorn divergence to `y`.

    ``v(x) = T_xy(x) - T_xx(x)`` [1]_, where ``T_ab`` is the barycentric projection of the
    entropic plan from ``a`` to ``b``. It is minus the gradient of the divergence in each point,
    divided by the point's weight; no automatic differentiation is involved.

    Parameters
    ----------
    x : Tensor of shape (..., n, d)
        Source points, which move.
    y : Tensor of shape (..., m, d)
        Target points.
    blur, a, b, scaling, tol, max_iter, g_init
        As in `sinkhorn_potentials`.

    Returns
    -------
    SinkhornVelocity

    References
    ----------
    .. [1] Zhu, Wang, Zhang, Zhao, Qian. Neural Sinkhorn Gradient Flow. arXiv:2401.14069, 2024.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.flow import sinkhorn_velocity
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> sinkhorn_velocity(x, x + 2.0, blur=0.05).v
    tensor([[2., 2.],
            [2., 2.]])
    """
    return Solver(y, b, scaling, tol, max_iter).velocity(x, a, blur, _checked_start(g_init))


@torch.no_grad()
def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    *,
    blur: float,
    a: Tensor | None = None,
    b: Tensor | None = None,
    scaling: float = 0.5,
    tol: float = 1e-4,
    max_iter: int = 1000,
) -> Tensor:
    r"""Debiased Sinkhorn divergence ``OT(x, y) - OT(x, x)/2 - OT(y, y)/2``.

    For small blur it tends to half the squared 2-Wasserstein distance. It is not differentiable:
    its gradient in each point is minus the point's weight times `sinkhorn_velocity`.

    Parameters
    ----------
    x, y, blur, a, b, scaling, tol, max_iter
        As in `sinkhorn_potentials`.

    Returns
    -------
    Tensor of shape (...)
        In squared units of the data.
    """
    to_target = Solver(y, b, scaling, tol, max_iter)
    cross, g_own = to_target.potentials(x, a, blur), to_target.own_potential(blur).g
    f_own = symmetric_potential(x, blur=blur, a=a, tol=tol, max_iter=max_iter).f
    weights_a, weights_b = _log_weights(x, a, "a").exp(), _log_weights(y, b, "b").exp()
    return (weights_a * (cross.f - f_own)).sum(-1) + (weights_b * (cross.g - g_own)).sum(-1)


class Solver:
    """Transport to the target `y`, of which what depends on nothing else is computed once.

    Parameters
    ----------
    y, b, scaling, tol, max_iter
        As in `sinkhorn_potentials`.
    """

    def __init__(
        self,
        y: Tensor,
        b: Tensor | None = None,
        scaling: float = 0.5,
        tol: float = 1e-3,
        max_iter: int = 1000,
    ) -> None:
        if not (0 < scaling < 1 and tol >= 0 and max_iter >= 1):
            raise ValueError(
                f"scaling={scaling}, tol={tol}, max_iter={max_iter}: expected a scaling between 0 and 1, "
                "a tol of at least 0 and a max_iter of at least 1."
            )
        self.y, self.b = y, b
        self.scaling, self.tol, self.max_iter = scaling, tol, max_iter
        self.memory = Memory()

    def potentials(
        self, x: Tensor, a: Tensor | None, blur: float, g_init: Tensor | None = None
    ) -> SinkhornPotentials:
        problem = self._problem(x, a, blur)
        solution = problem.solve(self.scaling, self.tol, self.max_iter, g_init)
        g = problem.target_potential(solution)
        return self._answer(problem.source_potential(solution), g, solution)

    def own_potential(self, blur: float) -> SinkhornPotentials:
        """Potential of the transport of the target to itself."""
        problem = self._problem(self.y, self.b, blur).of_source()
        solution = problem.solve_symmetric(self.tol, self.max_iter)
        g = problem.target_potential(solution)
        return self._answer(g, g, solution)

    def velocity(
        self,
        x: Tensor,
        a: Tensor | None,
        blur: float,
        g_init: Tensor | None = None,
        out: Tensor | None = None,
    ) -> SinkhornVelocity:
        problem = self._problem(x, a, blur)
        cross = problem.solve(self.scaling, self.tol, self.max_iter, g_init)
        # Now, since the problem of the source takes the memory of this one.
        g, to_target = problem.target_potential(cross), cross.plan.project(problem.y.points)
        own = problem.of_source().solve_symmetric(self.tol, self.max_iter)
        out = torch.empty_like(x) if out is None else out
        torch.sub(to_target, own.plan.project(problem.x.points), out=out)
        error = torch.maximum(cross.marginal_error, own.marginal_error)
        return SinkhornVelocity(
            v=out,
            g=g.to(x.dtype),
            converged=error <= self.tol,
            n_iters=cross.n_iters,
            marginal_error=error.to(x.dtype),
        )

    def _problem(self, x: Tensor, a: Tensor | None, blur: float) -> _Problem:
        """The problem from `x`, in the precision that it needs."""
        if not 0 < blur < math.inf:
            raise ValueError(f"blur={blur}: expected a positive blur.")
        check_clouds(x, self.y)
        # The problem does not see a common shift, the precision of S does.
        centred = torch.sub(x, self._centre, out=self.memory.room("source", x.shape, x))
        source, target = _Cloud(centred, a, "a"), self._target
        largest = max(source.largest_norm, target.largest_norm)
        if not math.isfinite(source.largest_norm + target.largest_norm):
            raise ValueError(
                f"x and y must be finite, and their squared distances numbers that {x.dtype} can hold."
            )
        # Relative error of the plan's entries by a norm: no iteration can make it smaller.
        rounding = torch.finfo(x.dtype).eps * 2 / blur**2
        is_single = x.dtype == torch.float32 and x.device.type != "mps"
        if rounding * largest <= _LARGEST_ROUNDING and not (is_single and self.tol < _SMALLEST_SINGLE_TOL):
            return _Problem(source, target, blur, self.memory)
        if is_single:
            return self._in_float64._problem(x.double(), a, blur)
        norms = torch.maximum(source.norms.amax(-1), target.norms.amax(-1))
        return _Problem(source, target, blur, self.memory, rounding * norms)

    @cached_property
    def _centre(self) -> Tensor:
        return self.y.mean(dim=-2, keepdim=True)

    @cached_property
    def _target(self) -> _Cloud:
        return _Cloud(self.y - self._centre, self.b, "b")

    @cached_property
    def _in_float64(self) -> Solver:
        return Solver(self.y.double(), self.b, self.scaling, self.tol, self.max_iter)

    def _answer(self, f: Tensor, g: Tensor, solution: _Solution) -> SinkhornPotentials:
        error, dtype = solution.marginal_error, self.y.dtype
        return SinkhornPotentials(
            f.to(dtype), g.to(dtype), error <= self.tol, solution.n_iters, error.to(dtype)
        )


class _Cloud:
    """Points with their weights."""

    def __init__(self, points: Tensor, weights: Tensor | None, name: str) -> None:
        self.points = points
        self.norms = torch.linalg.vector_norm(points, dim=-1).square() / 2
        self.log_weights = _log_weights(points, weights, name)
        self.weights = self.log_weights.exp()
        self.largest_norm = self.norms.max().item()


class _Problem:
    """One batch of transport problems between fixed clouds, to be solved at `blur` or above."""

    def __init__(
        self, x: _Cloud, y: _Cloud, blur: float, memory: Memory, rounding: Tensor | None = None
    ) -> None:
        self.x, self.y, self.blur, self.memory, self.rounding = x, y, blur, memory, rounding

    @cached_property
    def products(self) -> Tensor | None:
        x, y = self.x.points, self.y.points
        if not is_stored(x, y):
            return None
        return torch.matmul(x, y.mT, out=self.memory.matrix("products", x, y))

    def of_source(self) -> _Problem:
        """From the source to itself, in the memory of this problem."""
        return _Problem(self.x, self.x, self.blur, self.memory, self.rounding)

    def source_potential(self, solution: _Solution) -> Tensor:
        """The one that makes the rows exact."""
        similarity = solution.plan.similarity
        sums = similarity.logsumexp(solution.plan.reduced_potential())
        return self.x.norms - similarity.eps * sums

    def target_potential(self, solution: _Solution) -> Tensor:
        w, eps = solution.plan.reduced_potential(), solution.plan.similarity.eps
        return eps * (w - self.y.log_weights) + self.y.norms

    def next_start(self, solution: _Solution) -> Tensor:
        """Target potential after half a round more, which costs no product."""
        residual = self.y.log_weights - solution.plan.marginal.log()
        return self.target_potential(solution) + solution.plan.similarity.eps * residual

    def solve(self, scaling: float, tol: float, max_iter: int, g_init: Tensor | None) -> _Solution:
        n_iters = 0
        if g_init is None:
            g_init, n_iters = self._cold_start(scaling, max_iter)
        solution = self._solve_at(self.blur, g_init.to(self.y.norms), tol, max_iter)
        return solution._replace(n_iters=n_iters + solution.n_iters)

    def _cold_start(self, scaling: float, max_iter: int) -> tuple[Tensor, int]:
        if min(self.x.points.shape[-2], self.y.points.shape[-2]) > 2 * _COARSE_POINTS:
            return self._coarse_start(scaling, max_iter)
        # What the potential tends to as the blur grows.
        mean = self.x.weights.unsqueeze(-2) @ self.x.points
        g, n_iters = self.y.norms - (self.y.points @ mean.mT).squeeze(-1), 0
        for annealed_blur in _annealing(self._diameter() / 4, self.blur, scaling):
            solution = self._solve_at(annealed_blur, g, _ANNEALING_TOL, max_iter)
            g = self.next_start(solution)
            n_iters += solution.n_iters
        return g, n_iters

    def _coarse_start(self, scaling: float, max_iter: int) -> tuple[Tensor, int]:
        """Target potential that the source potential of a random subsample implies."""
        generator = torch.Generator().manual_seed(0)
        coarse = _Problem(_subsample(self.x, generator), _subsample(self.y, generator), self.blur, Memory())
        solution = coarse.solve(scaling, _ANNEALING_TOL, max_iter, None)
        f, eps = coarse.source_potential(solution), self.blur**2
        similarity = Similarity(self.y.points, coarse.x.points, eps, Memory())
        sums = similarity.logsumexp((f - coarse.x.norms) / eps + coarse.x.log_weights)
        return self.y.norms - eps * sums, solution.n_iters

    def _diameter(self) -> float:
        """Upper bound on the distance between any two points of the largest problem."""
        return math.sqrt(2 * self.x.largest_norm) + math.sqrt(2 * self.y.largest_norm)

    def _solve_at(self, blur: float, g: Tensor, tol: float, max_iter: int) -> _Solution:
        """Sinkhorn's iteration from the target potential `g` until the marginals are met."""
        eps, b, log_b = blur**2, self.y.weights, self.y.log_weights
        similarity = Similarity(self.x.points, self.y.points, eps, self.memory, self.products)
        plan = Plan(similarity, self.x.weights, b, (g - self.y.norms) / eps + log_b)
        accelerator = Anderson(b)
        for n_iters in itertools.count(1):
            error = _l1(plan.marginal - b)
            worst = error.max().item()
            if n_iters == max_iter or math.isnan(worst):
                break
            is_time_to_look = worst <= tol or n_iters % _DRIFT_INTERVAL == 0
            if is_time_to_look and n_iters > 1 and plan.has_drifted():
                plan.absorb()
                accelerator.forget()
                continue
            if worst <= tol:
                break
            step = accelerator.step(plan.log_beta, log_b - plan.marginal.log())
            if error.ndim:
                step = step * (error > tol).unsqueeze(-1)
            plan.balance(plan.log_beta + step)
        return _Solution(plan, self._honest(error), n_iters)

    def solve_symmetric(self, tol: float, max_iter: int) -> _Solution:
        """Transport of x to itself: one potential, one scaling.

        The damped update ``q <- q (a / (q K q))^(2/3)`` contracts by 1/3 a round whatever the
        problem: its linear part is ``1 - 2/3 (1 + s)`` with ``s`` in [0, 1] an eigenvalue of the
        plan. K has a unit diagonal, so nothing can underflow and nothing is ever absorbed.
        """
        eps, a = self.blur**2, self.x.weights
        similarity = Similarity(self.x.points, self.x.points, eps, self.memory, self.products)
        plan = SymmetricPlan(similarity, self.x.norms / eps, a)
        for n_iters in itertools.count(1):
            error = _l1(plan.marginal - a)
            worst = error.max().item()
            if worst <= tol or n_iters == max_iter or math.isnan(worst):
                break
            plan.balance(plan.scaling * (a / plan.marginal).pow(2 / 3))
        return _Solution(plan, self._honest(error), n_iters)

    def _honest(self, error: Tensor) -> Tensor:
        """The error of the marginals, or that of the plan's entries where it makes the former void."""
        if self.rounding is None:
            return error
        return torch.where(self.rounding > _LARGEST_ROUNDING, self.rounding.maximum(error), error)


def _subsample(cloud: _Cloud, generator: torch.Generator) -> _Cloud:
    n = cloud.points.shape[-2]
    rows = torch.randperm(n, generator=generator)[:_COARSE_POINTS].to(cloud.points.device)
    return _Cloud(cloud.points[..., rows, :], cloud.log_weights[..., rows].softmax(-1), "a sample's")


def _checked_start(g_init: Tensor | None) -> Tensor | None:
    if g_init is None:
        return None
    if not bool(g_init.isfinite().all()):
        raise ValueError("g_init must be finite.")
    # The constant is free, and a large one would cost precision.
    return g_init - g_init.mean(-1, keepdim=True)


def _l1(difference: Tensor) -> Tensor:
    return torch.linalg.vector_norm(difference, ord=1, dim=-1)


def _log_weights(points: Tensor, weights: Tensor | None, name: str) -> Tensor:
    if weights is None:
        return points.new_full(points.shape[:-1], -math.log(points.shape[-2]))
    weights = weights.to(points)
    if weights.shape != points.shape[:-1]:
        raise ValueError(
            f"{name} has shape {tuple(weights.shape)}; expected {tuple(points.shape[:-1])}, a weight a point."
        )
    if not bool(((weights >= 0).all(-1) & ((weights.sum(-1) - 1).abs() < 1e-3)).all()):
        raise ValueError(f"The weights {name} must be non-negative and sum to one.")
    weights = weights / weights.sum(-1, keepdim=True)
    return weights.log().clamp(min=_SMALLEST_LOG_WEIGHT)


def check_clouds(x: Tensor, y: Tensor) -> None:
    if x.shape[:-2] != y.shape[:-2] or x.shape[-1:] != y.shape[-1:] or min(x.ndim, y.ndim) < 2:
        raise ValueError(
            f"x and y have shapes {tuple(x.shape)} and {tuple(y.shape)}; expected (..., n, d) and "
            "(..., m, d) with the same leading dimensions and the same d."
        )
    if 0 in x.shape or 0 in y.shape:
        raise ValueError("x and y need at least one point and one dimension each.")


def _annealing(largest: float, blur: float, scaling: float) -> Iterator[float]:
    """Blurs above `blur`, falling from `largest` by the ratio `scaling`."""
    annealed_blur = largest
    while annealed_blur * scaling > blur:
        yield annealed_blur
        annealed_blur *= scaling
