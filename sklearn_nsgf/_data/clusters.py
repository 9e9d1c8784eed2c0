"""Clusters of a sample without labels, as classes of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2, vq
from scipy.special import logsumexp, softmax
from sklearn.cluster import kmeans_plusplus

from sklearn_nsgf._data.layout import Layout
from sklearn_nsgf._data.moments import (
    FACTOR_SIZE,
    MAX_SIZE,
    ClassMoments,
    Moments,
    class_moments_of,
    divide_in_place,
    mixture_moments_of,
    row_places,
    some_rows,
)
from sklearn_nsgf._data.rows import SampleRows

# Rows of a cluster, on average and at least, and clusters at most.
CLUSTER_ROWS, MAX_CLUSTERS = 16, 64
# Rows for each cluster that k-means looks at, at most, and its rounds, and those of a mixture.
SEEN_ROWS, N_ROUNDS = 64, 20
# Numbers of clusters of which the likeliest is chosen, where features have units of their own. If it is the
# largest one, rows lie on curves rather than in clusters. A network learned such worse from clusters than
# from one normal distribution if they were so many or more: in the plane, of a rolled surface, of tables.
NUMBERS, CURVE_ROWS = (1, 2, 4, 8, 16), 500
# With more features clusters overlap less, and a mixture takes too long.
MIXTURE_FEATURES = 32
# Folds of rows whose likelihood chooses: all, or some with so many rows. For it deviations count as so large
# at least, in units of all rows, and those of directions in units of deviations.
N_FOLDS, HELD_OUT_ROWS, SMALLEST_STD = 5, 500, 1e-3
# Standard errors by which clusters must be likelier than one normal distribution.
N_ERRORS = 0.5
# Clusters of a single column have so many values each, at least, and means so far apart, in the root of the
# mean of both variances: two of these show that there are two [Ashman, Bird, Zepf. Detecting bimodality in
# astronomical datasets, 1994], and one-sided columns reach that, too. So many values are looked at, from
# where one of these parts of them is the lower cluster.
FEWEST_VALUES, LEAST_DISTANCE, SEEN_VALUES = 5, 3.0, 1000
LOWER_PARTS = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99)


def cluster_moments_of(
    cloud: SampleRows,
    whole: Moments,
    *,
    per_feature: bool,
    encode: Callable[[np.ndarray], np.ndarray] | None = None,
    n_clusters: int | None = None,
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
    n_clusters : int or None
        How many, at most. None for as many as rows allow if all features share a unit, and as many as are
        likeliest if not.
    **options
        Further arguments of `moments_of`.

    Returns
    -------
    moments : ClassMoments or None
        None if a single normal distribution is likelier, or a better start.
    """
    places = row_places(cloud.shape, MAX_SIZE if per_feature else FACTOR_SIZE)
    n_most = min(len(places) // CLUSTER_ROWS, MAX_CLUSTERS)
    if n_most < 2 or not whole.std.any() or (per_feature and options["with_factor"]):
        return None
    rows = cloud.take(places)[:]
    unit = whole.std if per_feature else np.full_like(whole.std, whole.std.max())
    points = divide_in_place((rows if encode is None else encode(rows)) - whole.mean, unit)
    options |= {"per_feature": per_feature, "columns": ()}
    if n_clusters is not None:
        n_clusters = min(n_clusters, n_most)
    else:
        n_clusters = _likeliest_number(points, n_most, **options) if per_feature else n_most
    if n_clusters == 1:
        return None
    found = _clusters_of(points, n_clusters, **options)
    shares = found.weights / found.weights.sum()
    means = found.means - shares @ found.means
    between, within = shares @ np.square(means), shares @ np.square([each.std for each in found.moments])
    left = np.maximum(np.square(divide_in_place(whole.std.copy(), unit)) - between, 0)
    stretch = np.sqrt(np.divide(left, within, where=within > 0, out=np.zeros_like(within)))
    moments = [each._replace(std=each.std * stretch * unit) for each in found.moments]
    return ClassMoments(whole.mean + means * unit, moments, found.weights)


def values_apart(values: np.ndarray) -> list[np.ndarray]:
    """Sorted values of a column in parts: of clusters that hardly overlap, if there are such."""
    seen = values[np.linspace(0, len(values) - 1, min(len(values), SEEN_VALUES)).astype(int)]
    if len(seen) < 2 * FEWEST_VALUES or seen[0] == seen[-1]:
        return [values]
    points, scaled = (((each - seen.mean()) / seen.std())[:, None] for each in (seen, values))
    sizes = np.clip(np.multiply(LOWER_PARTS, len(seen)).astype(int), FEWEST_VALUES, len(seen) - FEWEST_VALUES)
    found = [_mixture_of(points, (np.arange(len(seen)) >= size).astype(int)) for size in np.unique(sizes)]
    likeliest = max(found, key=lambda each: logsumexp(_log_densities(points, each), axis=0).sum())
    if not _are_apart(likeliest):
        return [values]
    means = likeliest.means[:, 0]
    low, high = np.argsort(means)
    densities = _log_densities(scaled, likeliest)
    is_nearer = (densities[low] > densities[high]) & (scaled[:, 0] < means[high])
    place = np.flatnonzero(is_nearer | (scaled[:, 0] <= means[low]))[-1] + 1
    return values_apart(values[:place]) + values_apart(values[place:])


def _are_apart(found: ClassMoments) -> bool:
    if len(found.moments) != 2 or found.weights.min() < FEWEST_VALUES:
        return False
    std = np.sqrt(np.mean([each.std**2 for each in found.moments]))
    return bool(np.ptp(found.means) > LEAST_DISTANCE * std)


def _likeliest_number(points: np.ndarray, n_most: int, **options: Any) -> int:
    """Number of clusters, by the likelihoods of rows that are held out in turn."""
    some = points[np.random.RandomState(0).permutation(len(points))[: N_FOLDS * HELD_OUT_ROWS]]
    folds = np.arange(len(some)) % N_FOLDS
    n_used = min(N_FOLDS, math.ceil(N_FOLDS * HELD_OUT_ROWS / len(some)))

    def likelihoods(n_clusters: int) -> np.ndarray:
        parts = ((some[folds == k], some[folds != k]) for k in range(n_used))
        densities = (_log_densities(new, _clusters_of(seen, n_clusters, **options)) for new, seen in parts)
        return np.concatenate([logsumexp(each, axis=0) for each in densities])

    found = {number: likelihoods(number) for number in NUMBERS if number <= n_most}
    likeliest = max(found, key=lambda number: found[number].sum())
    gain = found[likeliest] - found[1]
    is_clear = gain.mean() > N_ERRORS * gain.std() / math.sqrt(len(gain))
    is_curve = likeliest == NUMBERS[-1] and len(points) >= CURVE_ROWS
    return likeliest if is_clear and not is_curve else 1


def _clusters_of(points: np.ndarray, n_clusters: int, **options: Any) -> ClassMoments:
    """Clusters by k-means; of few features with units of their own, a mixture of normal distributions."""
    codes = _cluster_codes(points, n_clusters)
    if n_clusters == 1 or not options["per_feature"] or points.shape[1] > MIXTURE_FEATURES:
        rows = SampleRows(points, Layout(points.shape[1:]))
        return class_moments_of(rows, codes, **options)._replace(weights=np.bincount(codes))
    return _mixture_of(points, codes)


def _mixture_of(points: np.ndarray, codes: np.ndarray) -> ClassMoments:
    """A mixture by expectation maximisation, from clusters to which the points belong at first."""
    found = mixture_moments_of(points, (codes == np.arange(codes.max() + 1)[:, None]).astype(float))
    for _ in range(N_ROUNDS):
        found = mixture_moments_of(points, softmax(_log_densities(points, found), axis=0))
    return found


def _log_densities(points: np.ndarray, found: ClassMoments) -> np.ndarray:
    """Of each part of a mixture, with its weight, without what is the same for all mixtures."""
    shares = found.weights / found.weights.sum()
    std = np.maximum([each.std for each in found.moments], SMALLEST_STD)
    correlations = np.array([each.correlation for each in found.moments])
    roots = np.linalg.cholesky(correlations + SMALLEST_STD**2 * np.eye(points.shape[1]))
    whitened = (points - found.means[:, None]) @ (np.linalg.inv(roots) / std[:, None]).transpose(0, 2, 1)
    volumes = np.log(std * np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
    return (np.log(shares) - volumes)[:, None] - np.square(whitened).sum(axis=2) / 2


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
