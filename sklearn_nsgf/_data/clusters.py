"""Clusters of a sample without labels, as classes of it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2, vq
from sklearn.cluster import kmeans_plusplus

from sklearn_nsgf._data.moments import (
    FACTOR_SIZE,
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


def cluster_moments_of(cloud: SampleRows, whole: Moments, **options: Any) -> ClassMoments | None:
    """Moments of the clusters of a sample, which together have its mean and, if they can, its variances.

    Parameters
    ----------
    cloud : SampleRows
        Of which 10 000 rows are used at most, fewer of more than 838 features.
    whole : Moments
        Of all of its rows.
    **options
        As in `moments_of`.

    Returns
    -------
    moments : ClassMoments or None
        None if the rows are too few for clusters.
    """
    places = row_places(cloud.shape, FACTOR_SIZE)
    n_clusters = min(len(places) // CLUSTER_ROWS, MAX_CLUSTERS)
    if n_clusters < 2 or not whole.std.any():
        return None
    rows = cloud.take(places)
    codes = _cluster_codes((rows[:] - whole.mean) / whole.std.max(), n_clusters)
    found = class_moments_of(rows, codes, **options)
    n_rows = np.bincount(codes)
    shares = n_rows / len(codes)
    means = found.means + (whole.mean - shares @ found.means)
    # In units of the deviations: squares of extreme numbers overflow.
    between = shares @ np.square(divide_in_place(means - whole.mean, whole.std))
    within = shares @ np.square([divide_in_place(each.std.copy(), whole.std) for each in found.moments])
    stretch = np.sqrt(
        np.divide(np.maximum(1 - between, 0), within, where=within > 0, out=np.zeros_like(within))
    )
    moments = [each._replace(std=each.std * stretch) for each in found.moments]
    return ClassMoments(means, moments, n_rows)


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
