"""Mean, deviations and correlations of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.covariance import ledoit_wolf

from sklearn_nsgf.flow._samplers import Rows, chunks

# Correlations and quantiles are estimated from so many rows, and so many numbers, at most.
MAX_ROWS, MAX_SIZE = 10_000, 2**21


class Moments(NamedTuple):
    """Mean, standard deviation and correlation of a sample.

    Attributes
    ----------
    mean, std : ndarray of shape (n_features,)
        In float64. The deviation is exactly zero for a constant column.
    correlation : ndarray of shape (n_features, n_features) or None
        Shrunk towards the identity after Ledoit and Wolf, from 10 000 rows at most.
    """

    mean: np.ndarray
    std: np.ndarray
    correlation: np.ndarray | None


def moments_of(
    cloud: Rows,
    *,
    with_correlation: bool,
    encode: Callable[[np.ndarray], np.ndarray] | None = None,
    columns: Sequence[int] | np.ndarray = (),
) -> Moments:
    """Moments of a sample, which is read in chunks.

    Parameters
    ----------
    cloud : Rows
    with_correlation : bool
    encode : callable or None
        Changes some columns of rows. Their moments are estimated from 10 000 rows at most.
    columns : sequence of int
        Which.
    """
    n_rows = len(cloud)
    mean = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in chunks(cloud)) / n_rows
    largest = np.max([np.abs(chunk - mean).max(axis=0) for chunk in chunks(cloud)], axis=0)
    safe = np.where(largest > 0, largest, 1)
    square = sum(np.square((chunk - mean) / safe).sum(axis=0) for chunk in chunks(cloud))
    rounding = 10 * np.finfo(np.float64).eps * np.abs(mean)
    std = np.where(largest > rounding, safe * np.sqrt(square / n_rows), 0)
    if encode is None and not with_correlation:
        return Moments(mean, std, None)
    sample = some_rows(cloud) if encode is None else encode(some_rows(cloud))
    mean[columns], std[columns] = sample[:, columns].mean(axis=0), sample[:, columns].std(axis=0)
    if not with_correlation:
        return Moments(mean, std, None)
    return Moments(mean, std, _shrunk_correlation(divide_in_place(sample - mean, std)))


def some_rows(cloud) -> np.ndarray:
    """Rows for what needs many numbers at once: 10 000 at most, fewer of many features."""
    n_rows, n_features = cloud.shape
    n_used = min(MAX_ROWS, max(2, MAX_SIZE // n_features))
    return cloud[np.sort(np.random.RandomState(0).permutation(n_rows)[:n_used])]


def _shrunk_correlation(deviations: np.ndarray) -> np.ndarray:
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    std = np.sqrt(np.where(covariance.diagonal() > 0, covariance.diagonal(), 1))
    correlation = covariance / std / std[:, None]
    np.fill_diagonal(correlation, 1)
    return correlation


def divide_in_place(deviations: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Deviations in a unit of each feature, zero where that is."""
    np.divide(deviations, unit, where=unit > 0, out=deviations)
    np.multiply(deviations, 0, where=unit <= 0, out=deviations)
    return deviations
