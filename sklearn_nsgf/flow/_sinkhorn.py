"""Entropic optimal transport between batches of point clouds.

Conventions, those of GeomLoss with ``p=2``: the cost is ``|x - y|^2 / 2`` and the
temperature is ``epsilon = blur^2``. In POT's units ``reg = 2 * blur^2``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_nsgf._torch import full_precision
from sklearn_nsgf.flow._particles import Particles, log_weights


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


class SinkhornDivergence(NamedTuple):
    """Sinkhorn divergence of two clouds; see `sinkhorn_divergence`.

    Attributes
    ----------
    value : Tensor of shape (...)
        In squared units of the data.
    converged : bool Tensor of shape (...)
        Whether all three problems met the tolerance.
    n_iters : int
        The most rounds that one of them took.
    marginal_error : Tensor of shape (...)
        The largest of their errors.
    """

    value: Tensor
    converged: Tensor
    n_iters: int
    marginal_error: Tensor


@full_precision
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
    particles = Particles(x, y, blur=blur, a=a, b=b, scaling=scaling, tol=tol, max_iter=max_iter)
    problem = particles.to_target(blur)
    solution = problem.solve(particles.start(g_init))
    f, g = problem.source_potential(solution), problem.target_potential(solution)
    error = particles.honest(solution.marginal_error, blur)
    return SinkhornPotentials(f.to(x), g.to(x), error <= tol, solution.n_iters, error.to(x))


@full_precision
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
    particles = Particles(x, x, blur=blur, a=a, b=a, tol=tol, max_iter=max_iter)
    problem = particles.to_itself(blur)
    solution = problem.solve_symmetric()
    g = problem.target_potential(solution).to(x)
    error = particles.honest(solution.marginal_error, blur)
    return SinkhornPotentials(g, g, error <= tol, solution.n_iters, error.to(x))


@full_precision
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
    particles = Particles(x, y, blur=blur, a=a, b=b, scaling=scaling, tol=tol, max_iter=max_iter)
    particles.solve(blur, particles.start(g_init))
    g, error = particles.h + particles.target.norms, particles.marginal_error
    return SinkhornVelocity(particles.v.to(x), g.to(x), error <= tol, particles.n_iters, error.to(x))


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
) -> SinkhornDivergence:
    r"""Debiased Sinkhorn divergence ``OT(x, y) - OT(x, x)/2 - OT(y, y)/2``.

    For small blur it tends to half the squared 2-Wasserstein distance. It is not differentiable:
    its gradient in each point is minus the point's weight times `sinkhorn_velocity`.

    Parameters
    ----------
    x, y, blur, a, b, scaling, tol, max_iter
        As in `sinkhorn_potentials`.

    Returns
    -------
    SinkhornDivergence

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.flow import sinkhorn_divergence
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> sinkhorn_divergence(x, x + 2.0, blur=0.05).value  # half of the squared shift
    tensor(4.)
    """
    to_target = sinkhorn_potentials(x, y, blur=blur, a=a, b=b, scaling=scaling, tol=tol, max_iter=max_iter)
    own_x = symmetric_potential(x, blur=blur, a=a, tol=tol, max_iter=max_iter)
    own_y = symmetric_potential(y, blur=blur, a=b, tol=tol, max_iter=max_iter)
    weights_a, weights_b = log_weights(x, a, "a").exp(), log_weights(y, b, "b").exp()
    solved = to_target, own_x, own_y
    return SinkhornDivergence(
        (weights_a * (to_target.f - own_x.f)).sum(-1) + (weights_b * (to_target.g - own_y.g)).sum(-1),
        torch.stack([each.converged for each in solved]).all(0),
        max(each.n_iters for each in solved),
        torch.stack([each.marginal_error for each in solved]).amax(0),
    )
