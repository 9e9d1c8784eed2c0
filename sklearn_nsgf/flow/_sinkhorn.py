"""Entropic optimal transport between batches of point clouds.

Conventions, those of GeomLoss with ``p=2``: the cost is ``|x - y|^2 / 2`` and the
temperature is ``epsilon = blur^2``. In POT's units ``reg = 2 * blur^2``.

How a problem is solved. With ``S = x y^T / epsilon`` the plan is ``exp(S + u + w)``, where
``u`` and ``w`` gather the potentials, the squared norms and the log-weights. One
pass in the log domain balances ``u`` and ``w`` and stores the plan (`_log_domain_pass`); from there
on Sinkhorn's iteration is two matrix-vector products a round on scalings ``alpha`` and ``beta``
around the stored plan (`_Problem._scale`), accelerated by `_Anderson`. Whenever the
scalings grow too far from one they are absorbed into ``w`` by another log-domain pass.
A cold start walks the blur down from the diameter of the data (`_annealing`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Entries of the plan below exp(-50) are stored as zeros: no sum could see them, and numbers
# close to the smallest float are slow on CPUs.
_LOG_FLOOR = -50.0
# Scalings are absorbed beyond exp(+-15): times the floor above they stay invisible.
_LOG_SCALING_LIMIT = 15.0
_ANNEALING_TOL = 0.1
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


class _Plan(NamedTuple):
    """A plan ``alpha * kernel * beta`` with exact row marginals, and its reduced potentials."""

    kernel: Tensor
    alpha: Tensor
    beta: Tensor
    u: Tensor
    w: Tensor
    marginal_error: Tensor
    n_iters: int

    def project(self, points: Tensor) -> Tensor:
        """Barycentric projection: the mean of ``points`` under each row of the plan."""
        weights = self.beta.unsqueeze(-1)
        mass = _positive(self.kernel @ weights)
        return self.kernel @ (weights * points) / mass


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
        Ratio of the annealing: a cold start solves at blurs that fall by this factor from the
        diameter of the data down to `blur`. Values closer to 1 are slower and safer.
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
    _check_options(blur, tol, max_iter, scaling)
    problem = _Problem(x, y, a, b)
    plan = problem.solve(blur, scaling, tol, max_iter, g_init)
    return problem.potentials(plan, blur, tol)


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
    _check_options(blur, tol, max_iter)
    problem = _Problem(x, x, a, a)
    plan = problem.solve_symmetric(blur, tol, max_iter)
    return problem.potentials(plan, blur, tol)


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
    _check_options(blur, tol, max_iter, scaling)
    cross_problem, self_problem = _Problem(x, y, a, b), _Problem(x, x, a, a)
    cross = cross_problem.solve(blur, scaling, tol, max_iter, g_init)
    own = self_problem.solve_symmetric(blur, tol, max_iter)
    error = torch.maximum(cross.marginal_error, own.marginal_error)
    return SinkhornVelocity(
        v=cross.project(y) - own.project(x),
        g=cross_problem.potentials(cross, blur, tol).g,
        converged=error <= tol,
        n_iters=cross.n_iters,
        marginal_error=error,
    )


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
    _check_options(blur, tol, max_iter, scaling)
    cross_problem = _Problem(x, y, a, b)
    cross = cross_problem.potentials(cross_problem.solve(blur, scaling, tol, max_iter, None), blur, tol)
    f_own = symmetric_potential(x, blur=blur, a=a, tol=tol, max_iter=max_iter).f
    g_own = symmetric_potential(y, blur=blur, a=b, tol=tol, max_iter=max_iter).g
    weights_a, weights_b = cross_problem.log_a.exp(), cross_problem.log_b.exp()
    return (weights_a * (cross.f - f_own)).sum(-1) + (weights_b * (cross.g - g_own)).sum(-1)


class _Problem:
    """One batch of transport problems between fixed clouds; the blur comes with each call."""

    def __init__(self, x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> None:
        _check_clouds(x, y)
        # The problem does not see a common shift, the precision of S does.
        centre = y.mean(dim=-2, keepdim=True)
        self.x, self.y = x - centre, y - centre
        self.x_norms = self.x.square().sum(-1) / 2
        self.y_norms = self.y.square().sum(-1) / 2
        self.log_a, self.log_b = _log_weights(x, a, "a"), _log_weights(y, b, "b")

    def potentials(self, plan: _Plan, blur: float, tol: float) -> SinkhornPotentials:
        eps = blur**2
        return SinkhornPotentials(
            f=eps * (plan.u + plan.alpha.log() - self.log_a) + self.x_norms,
            g=eps * (plan.w + plan.beta.log() - self.log_b) + self.y_norms,
            converged=plan.marginal_error <= tol,
            n_iters=plan.n_iters,
            marginal_error=plan.marginal_error,
        )

    def solve(self, blur: float, scaling: float, tol: float, max_iter: int, g_init: Tensor | None) -> _Plan:
        n_iters = 0
        if g_init is None:
            g = torch.zeros_like(self.y_norms)
            for annealed_blur in _annealing(self._diameter(), blur, scaling):
                plan = self._solve_at(annealed_blur, g, _ANNEALING_TOL, max_iter)
                g = self.potentials(plan, annealed_blur, tol).g
                n_iters += plan.n_iters
        else:
            g = g_init
        plan = self._solve_at(blur, g, tol, max_iter)
        return plan._replace(n_iters=n_iters + plan.n_iters)

    def _diameter(self) -> float:
        """Upper bound on the distance between any two points of the largest problem."""
        return math.sqrt(2 * self.x_norms.max()) + math.sqrt(2 * self.y_norms.max())

    def _solve_at(self, blur: float, g: Tensor, tol: float, max_iter: int) -> _Plan:
        eps = blur**2
        similarity = self.x @ self.y.mT / eps
        w = (g - self.y_norms) / eps + self.log_b
        accelerator = _Anderson(self.log_b.exp())
        n_iters = 0
        while True:
            u, w, kernel = _log_domain_pass(similarity, w, self.log_a, self.log_b)
            accelerator.forget_origin()
            plan, absorb = self._scale(kernel, u, w, accelerator, tol, max_iter - n_iters)
            n_iters += plan.n_iters
            if not absorb or n_iters >= max_iter or bool(plan.marginal_error.isnan().any()):
                return plan._replace(n_iters=n_iters)
            w = w + plan.beta.log()

    def _scale(
        self,
        kernel: Tensor,
        u: Tensor,
        w: Tensor,
        accelerator: _Anderson,
        tol: float,
        max_iter: int,
    ) -> tuple[_Plan, bool]:
        """Sinkhorn's iteration by products with the stored plan, until it is solved.

        The second value says that the scalings have drifted too far and must be absorbed.
        """
        a, b = self.log_a.exp(), self.log_b.exp()
        log_beta = torch.zeros_like(w)
        for n_iters in range(1, max_iter + 1):
            beta = log_beta.exp()
            alpha = a / _positive((kernel @ beta.unsqueeze(-1)).squeeze(-1))
            marginal = _positive(beta * (alpha.unsqueeze(-2) @ kernel).squeeze(-2))
            error = (marginal - b).abs().sum(-1)
            if bool((error <= tol).all()):
                absorb = False
                break
            drift = torch.maximum(log_beta.abs().amax(), alpha.log().abs().amax())
            absorb = not bool(drift < _LOG_SCALING_LIMIT)
            if absorb:
                break
            log_beta = accelerator.step(log_beta, self.log_b - marginal.log(), error)
        return _Plan(kernel, alpha, beta, u, w, error, n_iters), absorb

    def solve_symmetric(self, blur: float, tol: float, max_iter: int) -> _Plan:
        """Transport of x to itself: one potential, one scaling.

        The damped update ``q <- q (a / (q K q))^(2/3)`` contracts by 1/3 a round whatever the
        problem: its linear part is ``1 - 2/3 (1 + s)`` with ``s`` in [0, 1] an eigenvalue of the
        plan. K has a unit diagonal, so nothing can underflow and nothing is ever absorbed.
        """
        eps = blur**2
        log_norms = self.x_norms / eps
        logits = self.x @ self.x.mT / eps - log_norms.unsqueeze(-1) - log_norms.unsqueeze(-2)
        kernel = _exp(logits.clamp_(max=0.0))
        a = self.log_a.exp()
        # The start is exact both for far apart points (1/sqrt(a)) and for coincident ones (1).
        scaling = a / (kernel @ a.unsqueeze(-1)).squeeze(-1).sqrt()
        for n_iters in range(1, max_iter + 1):
            marginal = scaling * (kernel @ scaling.unsqueeze(-1)).squeeze(-1)
            error = (marginal - a).abs().sum(-1)
            if bool((error <= tol).all()):
                break
            scaling = scaling * (a / marginal).pow(2 / 3)
        return _Plan(
            kernel,
            scaling,
            scaling,
            u=-log_norms,
            w=-log_norms,
            marginal_error=error,
            n_iters=n_iters,
        )


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
    return weights.log().clamp(min=_SMALLEST_LOG_WEIGHT)


def _check_clouds(x: Tensor, y: Tensor) -> None:
    if x.shape[:-2] != y.shape[:-2] or x.shape[-1:] != y.shape[-1:] or min(x.ndim, y.ndim) < 2:
        raise ValueError(
            f"x and y have shapes {tuple(x.shape)} and {tuple(y.shape)}; expected (..., n, d) and "
            "(..., m, d) with the same leading dimensions and the same d."
        )
    if 0 in x.shape or 0 in y.shape:
        raise ValueError("x and y need at least one point and one dimension each.")


def _check_options(blur: float, tol: float, max_iter: int, scaling: float = 0.5) -> None:
    if not (0 < blur < math.inf and 0 < scaling < 1 and tol >= 0 and max_iter >= 1):
        raise ValueError(
            f"blur={blur}, scaling={scaling}, tol={tol}, max_iter={max_iter}: expected a positive blur, a "
            "scaling between 0 and 1, a tol of at least 0 and a max_iter of at least 1."
        )


def _annealing(diameter: float, blur: float, scaling: float) -> Iterator[float]:
    """Blurs above `blur`, falling from the diameter of the data by the ratio `scaling`."""
    annealed_blur = diameter
    while annealed_blur * scaling > blur:
        yield annealed_blur
        annealed_blur *= scaling


def _positive(sums: Tensor) -> Tensor:
    """Keep logarithms and quotients of sums finite where rounding has lost all of a row."""
    return sums.clamp(min=torch.finfo(sums.dtype).tiny)


def _exp(logits: Tensor) -> Tensor:
    """Exponential in place, exactly zero below the floor."""
    return logits.clamp_(min=_LOG_FLOOR).exp_().sub_(math.exp(_LOG_FLOOR))


def _log_domain_pass(
    similarity: Tensor, w: Tensor, log_a: Tensor, log_b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One full Sinkhorn iteration by log-sum-exp: no start, however bad, underflows.

    Returns the reduced potentials and the plan, whose columns are exact; each row then keeps at
    least the share ``min(b)`` of its mass.
    """
    logits = similarity + w.unsqueeze(-2)
    u = log_a - _logsumexp(logits, dim=-1)
    logits = torch.add(similarity, u.unsqueeze(-1), out=logits)
    w = log_b - _logsumexp(logits, dim=-2)
    logits += w.unsqueeze(-2)
    return u, w, _exp(logits)


def _logsumexp(logits: Tensor, dim: int) -> Tensor:
    largest = logits.amax(dim, keepdim=True)
    return largest.squeeze(dim) + _exp(logits - largest).sum(dim).log()


class _Anderson:
    """Anderson acceleration of a fixed-point iteration ``z <- z + residual(z)``.

    The next point combines the last few so that the combined residual is smallest in the
    weighted norm. Where rounding makes a step point away from the residual the plain one is taken;
    steps longer than `largest_step` are cut.
    """

    memory = 5
    largest_step = 10.0

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.steps: list[tuple[Tensor, Tensor]] = []
        self.last: tuple[Tensor, Tensor] | None = None

    def forget_origin(self) -> None:
        """The next point counts from another origin; the steps made so far stay valid."""
        self.last = None

    def step(self, point: Tensor, residual: Tensor, error: Tensor) -> Tensor:
        if self.last is not None:
            self.steps.append((point - self.last[0], residual - self.last[1]))
            del self.steps[: -self.memory]
        self.last = point, residual
        if not self.steps:
            return point + residual
        point_steps, residual_steps = (torch.stack(steps, -2) for steps in zip(*self.steps, strict=True))
        weighted = residual_steps * self.weights.unsqueeze(-2)
        gram = weighted @ residual_steps.mT
        ridge = 10 * torch.finfo(gram.dtype).eps * gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        gram = gram + (ridge + torch.finfo(gram.dtype).tiny) * identity
        coefficients = torch.linalg.solve(gram, weighted @ residual.unsqueeze(-1))
        correction = ((point_steps + residual_steps).mT @ coefficients).squeeze(-1)
        step = residual - correction
        ascends = (self.weights * residual * step).sum(-1, keepdim=True) > 0
        step = torch.where(ascends, step, residual)
        length = step.abs().amax(-1, keepdim=True)
        return point + step * (self.largest_step / length).clamp(max=1.0)
