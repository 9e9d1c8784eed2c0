"""Pairs of points from two minibatches: what a straight flow is trained on."""

from __future__ import annotations

import warnings

import numpy as np
import ot
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sklearn_nsgf._torch import full_precision
from sklearn_nsgf.flow._particles import LARGEST_ROUNDING, check_clouds, plan_rounding
from sklearn_nsgf.flow._problem import half_squared_norms
from sklearn_nsgf.flow._samplers import Rows
from sklearn_nsgf.flow._sinkhorn import SinkhornPotentials, sinkhorn_potentials

COUPLINGS = ("exact", "independent", "sinkhorn")
# Of plans, where nothing else is said.
_TOL, _MAX_ITER = 1e-2, 1000
# Rows of each sample that a plan between classes is made of.
_PLAN_ROWS = 4096


@full_precision
def couple(
    x: Tensor,
    y: Tensor,
    coupling: str,
    rng: np.random.Generator,
    *,
    blur: float | None = None,
    tol: float = _TOL,
    max_iter: int = _MAX_ITER,
) -> tuple[Tensor, Tensor]:
    r"""Pair the points of two minibatches, on the CPU.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Source points.
    y : Tensor of shape (m, d)
        Target points.
    coupling : {"independent", "exact", "sinkhorn"}
        "independent" pairs at random, as in flow matching [1]_. "exact" pairs by the optimal transport plan
        for the squared distance, as in OT-CFM [2]_: an assignment where n = m. "sinkhorn" draws from
        the entropic plan, which also serves large minibatches.
    rng : numpy Generator
    blur : float, optional
        Square root of the temperature, in units of the data; for "sinkhorn".
    tol, max_iter
        For "sinkhorn", as in `sinkhorn_potentials`. A RuntimeWarning says if it was not reached.

    Returns
    -------
    rows, columns : Tensor of shape (max(n, m),)
        Indices of the paired points. Each point of the larger minibatch occurs once, the others as often as
        their share of the mass demands, on average.

    References
    ----------
    .. [1] Lipman, Chen, Ben-Hamu, Nickel, Le. Flow Matching for Generative Modeling. ICLR 2023.
    .. [2] Tong et al. Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
       Transport. TMLR, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_nsgf.flow import couple
    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[9.0], [8.0]])
    >>> couple(x, y, "exact", np.random.default_rng(0))
    (tensor([0, 1]), tensor([1, 0]))
    """
    check_clouds(x, y)
    x_is_larger = len(x) >= len(y)
    larger, smaller = (x, y) if x_is_larger else (y, x)
    larger, smaller, _ = _centred(larger.cpu(), smaller.cpu())
    if coupling == "independent":
        partners = torch.from_numpy(rng.permutation(len(larger))) % len(smaller)
    elif coupling == "exact":
        partners = _exact_partners(larger, smaller, rng)
    elif coupling == "sinkhorn" and blur is not None:
        larger, smaller = _in_precise_dtype(larger, smaller, x.dtype, blur)
        potentials = _solved(larger, smaller, blur=blur, tol=tol, max_iter=max_iter)
        partners = _draw_columns(_plan_rows(larger, smaller, potentials.g, blur), rng)
    else:
        raise ValueError(
            f"coupling={coupling!r}, blur={blur}: use one of {COUPLINGS}, 'sinkhorn' with a blur."
        )
    everyone = torch.arange(len(larger))
    return (everyone, partners) if x_is_larger else (partners, everyone)


@full_precision
def class_probabilities(
    rows: Rows, places: np.ndarray, others: Rows, codes: np.ndarray, n_classes: int, *, blur: float
) -> np.ndarray:
    r"""Classes of some rows, from the classes of the points that an entropic plan sends to them.

    ``P(c | j) = sum_{i in c} plan_ij / sum_{i labelled} plan_ij``, where the plan is that between both
    samples, or between 4 096 rows of them.

    Parameters
    ----------
    rows : ndarray of shape (n, n_features), or `Rows`
        A sample.
    places : ndarray of int
        Rows of that sample whose classes are wanted.
    others : ndarray of shape (m, n_features), or `Rows`
        The other sample.
    codes : ndarray of shape (m,)
        Class of each of the others, an index below `n_classes`, or -1 for none.
    n_classes : int
    blur : float
        Square root of the temperature of the plan, in units of the data. A RuntimeWarning says if the plan
        could not be solved.

    Returns
    -------
    probabilities : ndarray of shape (len(places), n_classes)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf.flow import class_probabilities
    >>> rows, others = np.array([[5.0], [6.0]], np.float32), np.array([[0.0], [1.0]], np.float32)
    >>> class_probabilities(rows, np.array([0, 1]), others, np.array([1, 0]), 2, blur=0.1).round(2)
    array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    if not (codes >= 0).any():
        raise ValueError("No row of the other sample has a class.")
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(len(sample))[:_PLAN_ROWS] for sample in (others, rows)]
    # Few labelled ones among very many must not be missed.
    some_labelled = rng.permutation(np.flatnonzero(codes >= 0))[: _PLAN_ROWS // 4]
    chosen = [np.union1d(chosen[0], some_labelled), np.sort(chosen[1])]
    x, y, centre = _centred(_read(others, chosen[0]), _read(rows, chosen[1]))
    x, y = _in_precise_dtype(x, y, torch.float32, blur)
    f = _solved(x, y, blur=blur, tol=_TOL, max_iter=_MAX_ITER).f
    codes = codes[chosen[0]]
    labelled = torch.from_numpy(codes >= 0)
    members = torch.from_numpy(np.eye(n_classes)[codes[codes >= 0]]).to(x)
    x, f = x[labelled], f[labelled]
    probabilities = []
    for start in range(0, len(places), _PLAN_ROWS):
        points = (_read(rows, places[start : start + _PLAN_ROWS]) - centre).to(x)
        probabilities.append((_plan_rows(points, x, f, blur) @ members).float().numpy())
    return np.concatenate(probabilities)


def _read(rows: Rows, places: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(rows[places], dtype=np.float64))


def _centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both clouds around the mean of `y`, and that mean: far from zero, costs would lose their digits."""
    x, y = x.double(), y.double()
    centre = y.mean(0)
    return x - centre, y - centre, centre


def _in_precise_dtype(x: Tensor, y: Tensor, dtype: torch.dtype, blur: float) -> tuple[Tensor, Tensor]:
    """Both centred clouds in `dtype`, or in float64 where that is too coarse beside the blur."""
    x_norms, y_norms = (half_squared_norms(points).to(dtype) for points in (x, y))
    if plan_rounding(x_norms, y_norms, blur).item() > LARGEST_ROUNDING:
        dtype = torch.float64
    return x.to(dtype), y.to(dtype)


def _solved(x: Tensor, y: Tensor, *, blur: float, tol: float, max_iter: int) -> SinkhornPotentials:
    """The potentials, with a warning if they are not solved."""
    potentials = sinkhorn_potentials(x, y, blur=blur, tol=tol, max_iter=max_iter)
    if not potentials.converged:
        warnings.warn(
            f"An entropic plan has a marginal error of {potentials.marginal_error:.2g}, above {tol}. "
            f"Raise blur, which is {blur:.3g}.",
            RuntimeWarning,
            # The caller of `couple` or `class_probabilities`, outside of their decorator.
            stacklevel=4,
        )
    return potentials


def _plan_rows(points: Tensor, others: Tensor, potential: Tensor, blur: float) -> Tensor:
    """Rows of the plan from points to the others, whose potential is given: each sums to one."""
    return ((potential - torch.cdist(points, others).square() / 2) / blur**2).softmax(-1)


def _exact_partners(x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
    costs = torch.cdist(x, y).square().numpy()
    if len(x) == len(y):
        return torch.from_numpy(linear_sum_assignment(costs)[1])
    # Equal weights, as whole numbers: POT compares their sums exactly.
    a, b = np.full(len(x), float(len(y))), np.full(len(y), float(len(x)))
    return _draw_columns(torch.from_numpy(ot.emd(a, b, costs)), rng)


def _draw_columns(plan: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a column for each row of the plan, with the probabilities that stand there."""
    cumulated = plan.double().cumsum(-1)
    places = cumulated[:, -1:] * torch.from_numpy(rng.random((len(plan), 1)))
    return torch.searchsorted(cumulated, places, right=True).squeeze(-1).clamp(max=plan.shape[-1] - 1)
