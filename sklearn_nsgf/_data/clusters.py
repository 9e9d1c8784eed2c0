"""Clusters of a sample without labels, as classes of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2, vq
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp
from sklearn.cluster import kmeans_plusplus

from sklearn_nsgf._data.layout import Layout
from sklearn_nsgf._data.moments import (
    FACTOR_SIZE,
    MAX_SIZE,
    ClassMoments,
    Moments,
    class_moments_of,
    divide_in_place,
    row_places,
    some_rows,
)
from sklearn_nsgf._data.rows import SampleRows

# Rows of a cluster, on average and at least, and clusters at most.
CLUSTER_ROWS, MAX_CLUSTERS = 16, 64
# Rows for each cluster that k-means looks at, at most, and its rounds.
SEEN_ROWS, N_ROUNDS = 64, 20
# Numbers of clusters of which the likeliest is chosen, where features have units of their own. If it is the
# largest one, rows lie on curves rather than in clusters: a network learned these worse from clusters than
# from one normal distribution, in the plane, of a rolled surface and of three tables.
NUMBERS = 1, 2, 4, 8, 16
# Folds of rows whose likelihood chooses: all, or some with so many rows. For it deviations count as so large
# at least, in units of all rows, and those of directions in units of deviations.
N_FOLDS, HELD_OUT_ROWS, SMALLEST_STD = 5, 500, 1e-3


def cluster_moments_of(
    cloud: SampleRows,
    whole: Moments,
    *,
    per_feature: bool,
    encode: Callable[[np.ndarray], np.ndarray] | None = None,
    **options: Any,
) -> ClassMoments | None:
    """Moments of the clusters of a sample, which together have its mean and, if they can, its variances.

    Parameters
    ----------
    cloud : SampleRows
        Of which 10 000 rows are used at most, fewer of more than 838 features, or of 209 with `per_feature`.
    whole : Moments
        Of all of its rows.
    per_feature : bool
        Whether each feature has a unit of its own, in which distances are measured.
    encode : callable or None
        As in `moments_of`.
    **options
        Further arguments of `moments_of`.

    Returns
    -------
    moments : ClassMoments or None
        As many clusters as rows allow if all features share a unit, and as many as are likeliest if not. None
        if a single normal distribution is likelier, or a better start.
    """
    places = row_places(cloud.shape, MAX_SIZE if per_feature else FACTOR_SIZE)
    n_most = min(len(places) // CLUSTER_ROWS, MAX_CLUSTERS)
    if n_most < 2 or not whole.std.any() or (per_feature and options["with_factor"]):
        return None
    rows = cloud.take(places)[:]
    unit = whole.std if per_feature else np.full_like(whole.std, whole.std.max())
    points = divide_in_place((rows if encode is None else encode(rows)) - whole.mean, unit)
    options |= {"per_feature": per_feature, "columns": ()}
    n_clusters = _likeliest_number(points, n_most, **options) if per_feature else n_most
    if n_clusters == 1:
        return None
    found, n_rows = _moments_and_sizes(points, n_clusters, **options)
    shares = n_rows / n_rows.sum()
    means = found.means - shares @ found.means
    between, within = shares @ np.square(means), shares @ np.square([each.std for each in found.moments])
    left = np.maximum(np.square(divide_in_place(whole.std.copy(), unit)) - between, 0)
    stretch = np.sqrt(np.divide(left, within, where=within > 0, out=np.zeros_like(within)))
    moments = [each._replace(std=each.std * stretch * unit) for each in found.moments]
    return ClassMoments(whole.mean + means * unit, moments, n_rows)


def _likeliest_number(points: np.ndarray, n_most: int, **options: Any) -> int:
    """Number of clusters, by the likelihood of rows that are held out in turn."""
    folds = np.random.RandomState(0).permutation(len(points)) % N_FOLDS
    n_used = min(N_FOLDS, math.ceil(HELD_OUT_ROWS * N_FOLDS / len(points)))

    def likelihood(n_clusters: int) -> float:
        parts = ((points[folds == k], points[folds != k]) for k in range(n_used))
        return sum(
            _log_density(new, *_moments_and_sizes(seen, n_clusters, **options)).sum() for new, seen in parts
        )

    likeliest = max((number for number in NUMBERS if number <= n_most), key=likelihood)
    return 1 if likeliest == NUMBERS[-1] else likeliest


def _log_density(points: np.ndarray, found: ClassMoments, n_rows: np.ndarray) -> np.ndarray:
    """Of a mixture of normal distributions, without what is the same for all mixtures."""
    densities = np.empty((len(n_rows), len(points)))
    for k, (mean, moments) in enumerate(zip(found.means, found.moments, strict=True)):
        if k == 0 or moments.correlation is not found.moments[k - 1].correlation:
            smallest = SMALLEST_STD**2 * np.eye(len(mean))
            root = cholesky(moments.correlation + smallest, lower=True)
        std = np.maximum(moments.std, SMALLEST_STD)
        whitened = solve_triangular(root, ((points - mean) / std).T, lower=True)
        volume = np.log(std).sum() + np.log(root.diagonal()).sum()
        densities[k] = np.log(n_rows[k]) - volume - np.square(whitened).sum(axis=0) / 2
    return logsumexp(densities, axis=0) - np.log(n_rows.sum())


def _moments_and_sizes(
    points: np.ndarray, n_clusters: int, **options: Any
) -> tuple[ClassMoments, np.ndarray]:
    codes = _cluster_codes(points, n_clusters)
    rows = SampleRows(points, Layout(points.shape[1:]))
    return class_moments_of(rows, codes, **options), np.bincount(codes)


def _cluster_codes(points: np.ndarray, n_clusters: int) -> np.ndarray:
    """Index of the cluster of each point, by k-means. Of points that repeat there can be fewer clusters."""
    seen = some_rows(points, SEEN_ROWS * n_clusters * points.shape[1])
    # Not that of scikit-learn, whose sums depend on the number of threads.
    centres, _ = kmeans_plusplus(seen, n_clusters, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        centres, _ = kmeans2(seen, centres, iter=N_ROUNDS, minit="matrix")
    codes, _ = vq(points, centres)
    return np.unique(codes, return_inverse=True)[1]
