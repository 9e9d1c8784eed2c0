"""Points on their way to a target, and the transport problems between and among them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sklearn_nsgf.flow._memory import Memory
from sklearn_nsgf.flow._plan import is_stored
from sklearn_nsgf.flow._problem import (
    Cloud,
    Problem,
    Settings,
    half_squared_norms,
    inner_products,
    kept_inner_products,
)

# Clouds so large beside the blur that the plan's entries would be off by more are solved in float64.
LARGEST_ROUNDING = 0.01
# So is what has to be closer than sums of float32 numbers are.
_SMALLEST_SINGLE_TOL = 1e-4
# A weight of zero counts as exp(-40), 4e-18.
_SMALLEST_LOG_WEIGHT = -40.0
# With so many times more features than points, products of plans are cheaper than those of points.
_FEATURES_PER_POINT = 2.5
# They are made anew if rounding has moved those that are carried along by more, in units of epsilon.
_LARGEST_DRIFT = 1e-3


class Particles:
    """Points on their way to a target.

    Their velocity is ``P y - Q x`` with the plans P to the target and Q to themselves, rows divided by
    their sums. Where there are few points beside the features, a step takes the inner products of the
    points with it, which is cheaper than to make them anew.

    Parameters
    ----------
    x, y, blur, a, b, scaling, tol, max_iter
        As in `sinkhorn_velocity`. No problem has a smaller blur: it decides on the precision.
    memory : Memory, optional
        Where temporaries are put, `v` among them.

    Attributes
    ----------
    cloud, target : Cloud
        The points and their target, relative to `centre`.
    v : Tensor of shape (..., n, d)
        Velocities that `solve` has found.
    h : Tensor of shape (..., m)
        The target's reduced potential that it has found.
    marginal_error : Tensor of shape (...)
        The larger of the two problems' errors.
    n_iters : int
        Rounds of the problem to the target.
    """

    v: Tensor
    h: Tensor
    marginal_error: Tensor
    n_iters: int

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        blur: float,
        a: Tensor | None = None,
        b: Tensor | None = None,
        scaling: float = 0.5,
        tol: float = 1e-3,
        max_iter: int = 1000,
        memory: Memory | None = None,
    ) -> None:
        if not 0 < blur < math.inf:
            raise ValueError(f"blur={blur}: expected a positive blur.")
        if not (0 < scaling < 1 and tol >= 0 and max_iter >= 1):
            raise ValueError(
                f"scaling={scaling}, tol={tol}, max_iter={max_iter}: expected a scaling between 0 and 1, "
                "a tol of at least 0 and a max_iter of at least 1."
            )
        check_clouds(x, y)
        self.settings, self._memory = Settings(scaling, tol, max_iter), memory or Memory()
        self._place(x, y, a, b)
        is_single = x.dtype == torch.float32 and x.device.type != "mps"
        is_rounded = self._rounding(blur).max().item() > LARGEST_ROUNDING
        if is_single and (is_rounded or tol < _SMALLEST_SINGLE_TOL):
            self._place(x.double(), y.double(), a, b)
        largest = max(x, y, key=lambda points: points.shape[-2])
        are_few = largest.shape[-2] * _FEATURES_PER_POINT <= x.shape[-1]
        self.are_few = are_few and is_stored(largest, largest)
        self.smallest_eps = blur**2
        self._products: dict[str, Tensor] = {}

    def _place(self, x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> None:
        # The problem does not see a common shift, the precision of S does.
        self.centre = y.mean(dim=-2, keepdim=True)
        points = torch.sub(x, self.centre, out=self._memory.room("x", x.shape, self.centre))
        self.cloud = Cloud(points, log_weights(x, a, "a"))
        self.target = Cloud(y - self.centre, log_weights(y, b, "b"))
        if not all(bool(cloud.norms.isfinite().all()) for cloud in (self.cloud, self.target)):
            raise ValueError(
                f"x and y must be finite, and their squared distances numbers that {x.dtype} can hold."
            )

    def _rounding(self, blur: float) -> Tensor:
        """See `plan_rounding`; where the points are now."""
        return plan_rounding(self.cloud.norms, self.target.norms, blur)

    def honest(self, error: Tensor, blur: float) -> Tensor:
        """The error of the marginals, or that of the plan's entries where it makes the former void."""
        rounding = self._rounding(blur)
        return torch.where(rounding > LARGEST_ROUNDING, rounding.maximum(error), error)

    def start(self, g_init: Tensor | None) -> Tensor | None:
        """Reduced potential for the potential `g_init`."""
        if g_init is None:
            return None
        if not bool(g_init.isfinite().all()):
            raise ValueError("g_init must be finite.")
        g_init = g_init.to(self.centre)
        # The constant is free, and a large one would cost precision.
        return g_init - g_init.mean(-1, keepdim=True) - self.target.norms

    def to_target(self, blur: float) -> Problem:
        return self._problem("xy", self.cloud, self.target, blur)

    def to_itself(self, blur: float) -> Problem:
        return self._problem("xx", self.cloud, self.cloud, blur)

    def own_potential_of_target(self, blur: float) -> Tensor:
        """Reduced potential of the transport of the target to itself."""
        problem = self._problem("yy", self.target, self.target, blur)
        return problem.reduced_potential(problem.solve_symmetric())

    def _problem(self, name: str, x: Cloud, y: Cloud, blur: float) -> Problem:
        if self.are_few:
            memory = self._memory.part(name)
            return Problem(x, y, blur, self.settings, memory, self._carried(name, x, y))
        # Each problem overwrites what the one before it has stored.
        memory = self._memory
        return Problem(x, y, blur, self.settings, memory, kept_inner_products(x, y, memory))

    def _carried(self, name: str, x: Cloud, y: Cloud) -> Tensor:
        """Inner products that steps take along, each in memory of its own."""
        if name not in self._products:
            self._products[name] = inner_products(x, y, self._memory.part(name))
        return self._products[name]

    def solve(self, blur: float, h: Tensor | None) -> None:
        """Find the velocity, from the target's reduced potential `h` or a cold start."""
        problem = self.to_target(blur)
        cross = problem.solve(h)
        # Now, since the next problem may take the memory of this one.
        self.h, self.n_iters = problem.reduced_potential(cross), cross.n_iters
        p_y = cross.plan.project(self.target.points, "P y")
        own = self.to_itself(blur).solve_symmetric()
        self.v = self._memory.room("v", self.cloud.points.shape, self.cloud.points)
        torch.sub(p_y, own.plan.project(self.cloud.points, "Q x"), out=self.v)
        self.marginal_error = self.honest(torch.maximum(cross.marginal_error, own.marginal_error), blur)
        self._plans = cross.plan, own.plan

    def move(self, eta: float) -> None:
        """Go along the velocity that `solve` has found, once: ``x + eta (P y - Q x)``."""
        self.cloud.points.add_(self.v, alpha=eta)
        self.cloud.norms = half_squared_norms(self.cloud.points)
        if self.are_few:
            self._move_products(eta)

    def _move_products(self, eta: float) -> None:
        """Inner products of ``x' = R x + eta P y`` with ``R = 1 - eta Q``, without a sum over features.

        ``x' y^T = R x y^T + eta P y y^T`` and ``x' x'^T = R x x^T R^T + eta (H + H^T)`` with
        ``H = P (R x y^T + eta/2 P y y^T)^T``.
        """
        to_target, to_itself = self._plans
        xy, xx = self._products["xy"], self._products["xx"]
        p_yy = to_target.project(self._carried("yy", self.target, self.target), "P y y^T")
        xy.sub_(to_itself.project(xy, "Q x y^T"), alpha=eta)
        h = to_target.project((xy + p_yy * (eta / 2)).mT, "H")
        xx.sub_(to_itself.project(xx, "Q x x^T"), alpha=eta)
        xx.sub_(to_itself.project(xx.mT, "Q x x^T").mT, alpha=eta)
        xx.add_(h, alpha=eta).add_(h.mT, alpha=eta)
        xy.add_(p_yy, alpha=eta)
        drift = (xx.diagonal(dim1=-2, dim2=-1) / 2 - self.cloud.norms).abs().max()
        if not drift.item() <= _LARGEST_DRIFT * self.smallest_eps:
            del self._products["xy"], self._products["xx"]


def plan_rounding(x_norms: Tensor, y_norms: Tensor, blur: float) -> Tensor:
    """Relative error that a plan's entries have from the start: no iteration can make it smaller.

    Takes the ``|x|^2 / 2`` and ``|y|^2 / 2`` of both clouds, of shapes (..., n) and (..., m).
    """
    return 2 * torch.finfo(x_norms.dtype).eps * torch.maximum(x_norms.amax(-1), y_norms.amax(-1)) / blur**2


def log_weights(points: Tensor, weights: Tensor | None, name: str) -> Tensor:
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
    if x.dtype != y.dtype or x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x is {x.dtype} and y {y.dtype}; expected both float32 or both float64.")
    if x.shape[:-2] != y.shape[:-2] or x.shape[-1:] != y.shape[-1:] or min(x.ndim, y.ndim) < 2:
        raise ValueError(
            f"x and y have shapes {tuple(x.shape)} and {tuple(y.shape)}; expected (..., n, d) and "
            "(..., m, d) with the same leading dimensions and the same d."
        )
    if 0 in x.shape or 0 in y.shape:
        raise ValueError("x and y need at least one point and one dimension each.")
