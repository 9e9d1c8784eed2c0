"""Pairs of points from two minibatches: what a straight flow is trained on."""

from __future__ import annotations

import warnings

import numpy as np
import ot
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sklearn_nsgf._torch import full_precision
from sklearn_nsgf.flow._particles import check_clouds
from sklearn_nsgf.flow._samplers import Rows
from sklearn_nsgf.flow._sinkhorn import sinkhorn_potentials

COUPLINGS = ("exact", "independent", "sinkhorn")
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
    tol: float = 1e-2,
    max_iter: int = 1000,
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
    x, y = x.cpu(), y.cpu()
    if len(x) < len(y):
        columns, rows = couple(y, x, coupling, rng, blur=blur, tol=tol, max_iter=max_iter)
        return rows, columns
    rows = torch.arange(len(x))
    if coupling == "independent":
        return rows, torch.from_numpy(rng.permutation(len(x))) % len(y)
    if coupling == "exact":
        costs = torch.cdist(x.double(), y.double()).square().numpy()
        if len(x) == len(y):
            return rows, torch.from_numpy(linear_sum_assignment(costs)[1])
        # Equal weights, as whole numbers: POT compares their sums exactly.
        a, b = np.full(len(x), float(len(y))), np.full(len(y), float(len(x)))
        return rows, _draw_columns(torch.from_numpy(ot.emd(a, b, costs)), rng)
    if coupling == "sinkhorn" and blur is not None:
        potentials = sinkhorn_potentials(x, y, blur=blur, tol=tol, max_iter=max_iter)
        if not potentials.converged:
            warnings.warn(
                f"A Sinkhorn coupling has a marginal error of {potentials.marginal_error:.2g}, above "
                f"{tol}. Raise blur.",
                RuntimeWarning,
                stacklevel=2,
            )
        logits = (potentials.g - torch.cdist(x, y).square() / 2) / blur**2
        return rows, _draw_columns(logits.softmax(-1), rng)
    raise ValueError(f"coupling={coupling!r}, blur={blur}: use one of {COUPLINGS}, 'sinkhorn' with a blur.")


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
        Square root of the temperature of the plan, in units of the data.

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
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(len(sample))[:_PLAN_ROWS] for sample in (others, rows)]
    # Few labelled ones among very many must not be missed.
    some_labelled = rng.permutation(np.flatnonzero(codes >= 0))[: _PLAN_ROWS // 4]
    chosen = [np.union1d(chosen[0], some_labelled), np.sort(chosen[1])]
    x, y = (
        torch.from_numpy(np.asarray(sample[each], dtype=np.float32))
        for sample, each in zip((others, rows), chosen, strict=True)
    )
    f = sinkhorn_potentials(x, y, blur=blur, tol=1e-2).f
    codes = codes[chosen[0]]
    if not (codes >= 0).any():
        raise ValueError("No row of the other sample has a class.")
    labelled = torch.from_numpy(codes >= 0)
    members = torch.from_numpy(np.eye(n_classes, dtype=np.float32)[codes[codes >= 0]])
    x, f = x[labelled], f[labelled]
    probabilities = []
    for start in range(0, len(places), _PLAN_ROWS):
        points = torch.from_numpy(np.asarray(rows[places[start : start + _PLAN_ROWS]], dtype=np.float32))
        shares = ((f - torch.cdist(points, x).square() / 2) / blur**2).softmax(-1)
        probabilities.append((shares @ members).numpy())
    return np.concatenate(probabilities)


def _draw_columns(plan: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a column for each row of the plan, with the probabilities that stand there."""
    cumulated = plan.double().cumsum(-1)
    places = cumulated[:, -1:] * torch.from_numpy(rng.random((len(plan), 1)))
    return torch.searchsorted(cumulated, places, right=True).squeeze(-1).clamp(max=plan.shape[-1] - 1)
