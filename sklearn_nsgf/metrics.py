"""How far two samples are apart."""

from __future__ import annotations

import numpy as np
import ot
import torch
from sklearn.metrics import pairwise_distances_chunked
from sklearn.utils import check_array

from sklearn_nsgf._torch import one_thread
from sklearn_nsgf.flow import sinkhorn_divergence as _sinkhorn_divergence

__all__ = ["energy_distance", "frechet_distance", "sinkhorn_divergence", "wasserstein_distance"]

ENERGY_MAX_ROWS = 4096


def energy_distance(X, Y):
    r"""Squared energy distance between two samples, unbiased.

    ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` with Euclidean norms and without the pairs of a point
    with itself [1]_. Zero on average for two samples of one distribution, and then negative about half
    of the time.

    Parameters
    ----------
    X : array-like of shape (n_x, n_features)
    Y : array-like of shape (n_y, n_features)
        Of each at most 4 096 rows are used, drawn with a fixed seed.

    Returns
    -------
    distance : float
        In units of the data.

    References
    ----------
    .. [1] Székely, Rizzo. Energy statistics: A class of statistics based on distances. Journal of
       Statistical Planning and Inference, 2013.

    Examples
    --------
    >>> from sklearn_nsgf.metrics import energy_distance
    >>> energy_distance([[0.0], [0.0]], [[3.0], [3.0]])
    6.0
    """
    X, Y = _check_pair(X, Y, ensure_min_samples=2)
    X, Y = _thin(X), _thin(Y)
    between = _sum_of_distances(X, Y) / (len(X) * len(Y))
    within_x = _sum_of_distances(X, X) / (len(X) * (len(X) - 1))
    within_y = _sum_of_distances(Y, Y) / (len(Y) * (len(Y) - 1))
    return float(2 * between - within_x - within_y)


def wasserstein_distance(X, Y):
    r"""2-Wasserstein distance between two samples, exact.

    Parameters
    ----------
    X : array-like of shape (n_x, n_features)
    Y : array-like of shape (n_y, n_features)
        All rows are used: time grows about as the cube and memory as the square of their number.

    Returns
    -------
    distance : float
        In units of the data. Between two samples of one distribution it is not zero but falls with
        their size, slowly in many dimensions.

    Examples
    --------
    >>> from sklearn_nsgf.metrics import wasserstein_distance
    >>> wasserstein_distance([[0.0], [1.0]], [[5.0], [4.0]])
    4.0
    """
    X, Y = _check_pair(X, Y)
    costs = ot.dist(X, Y)
    return float(np.sqrt(ot.emd2([], [], costs, numItermax=10_000_000)))


def sinkhorn_divergence(X, Y, *, blur):
    r"""Debiased Sinkhorn divergence between two samples.

    Parameters
    ----------
    X : array-like of shape (n_x, n_features)
    Y : array-like of shape (n_y, n_features)
    blur : float
        In units of the data. For small blur the divergence tends to half the squared
        2-Wasserstein distance, for large blur to half the squared distance of the means.

    Returns
    -------
    divergence : float
        In squared units of the data.

    Examples
    --------
    >>> from sklearn_nsgf.metrics import sinkhorn_divergence
    >>> round(sinkhorn_divergence([[0.0], [1.0]], [[5.0], [4.0]], blur=0.1), 6)
    8.0
    """
    X, Y = _check_pair(X, Y)
    with one_thread():
        return float(_sinkhorn_divergence(torch.tensor(X), torch.tensor(Y), blur=blur))


def frechet_distance(X, Y):
    r"""Squared 2-Wasserstein distance between the normal distributions fitted to two samples.

    ``|m_X - m_Y|^2 + tr(C_X + C_Y - 2 (C_X^{1/2} C_Y C_X^{1/2})^{1/2})`` with the means and the
    covariances [1]_. Generated images are judged by it in the features of a classifier; only
    values in the same features can be compared, and the number that is known as FID is that of one
    particular Inception network [2]_.

    Parameters
    ----------
    X : array-like of shape (n_x, n_features)
    Y : array-like of shape (n_y, n_features)
        Features of the samples. With few rows the distance is biased upwards, about in proportion
        to n_features / n.

    Returns
    -------
    distance : float
        In squared units of the features.

    References
    ----------
    .. [1] Dowson, Landau. The Fréchet distance between multivariate normal distributions. Journal of
       Multivariate Analysis 12(3), 1982.
    .. [2] Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter. GANs Trained by a Two Time-Scale Update
       Rule Converge to a Local Nash Equilibrium. NeurIPS 2017.

    Examples
    --------
    >>> from sklearn_nsgf.metrics import frechet_distance
    >>> frechet_distance([[0.0], [2.0]], [[3.0], [5.0]])
    9.0
    """
    X, Y = _check_pair(X, Y, ensure_min_samples=2)
    shift = X.mean(axis=0) - Y.mean(axis=0)
    root_x, root_y = map(_covariance_root, (X, Y))
    # The singular values are the roots of the eigenvalues of the product of both covariances.
    between = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    distance = shift @ shift + np.square(root_x).sum() + np.square(root_y).sum() - 2 * between
    return float(max(distance, 0.0))


def _covariance_root(X: np.ndarray) -> np.ndarray:
    """A matrix R with ``R^T R`` the covariance of the rows."""
    root = (X - X.mean(axis=0)) / np.sqrt(len(X) - 1)
    return np.linalg.qr(root, mode="r") if len(X) > X.shape[1] else root


def _check_pair(X, Y, **options) -> tuple[np.ndarray, np.ndarray]:
    X = check_array(X, dtype=np.float64, input_name="X", **options)
    Y = check_array(Y, dtype=np.float64, input_name="Y", **options)
    if X.shape[1] != Y.shape[1]:
        raise ValueError(f"X has {X.shape[1]} features and Y has {Y.shape[1]}; expected the same.")
    # Distances are computed from squared norms, which lose a shift that both samples share.
    centre = X.mean(axis=0)
    return X - centre, Y - centre


def _thin(rows: np.ndarray) -> np.ndarray:
    if len(rows) <= ENERGY_MAX_ROWS:
        return rows
    return rows[np.random.default_rng(0).choice(len(rows), ENERGY_MAX_ROWS, replace=False)]


def _sum_of_distances(X: np.ndarray, Y: np.ndarray) -> float:
    return sum(float(chunk.sum()) for chunk in pairwise_distances_chunked(X, Y))
