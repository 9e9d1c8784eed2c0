"""Mean, deviations and correlations of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.covariance import ledoit_wolf
from sklearn.utils.extmath import randomized_svd

from sklearn_nsgf.flow._samplers import Rows, chunks

# Correlations and quantiles are estimated from so many rows, and so many numbers, at most.
MAX_ROWS, MAX_SIZE = 10_000, 2**21
# The same for the factor of correlations, and how many columns it has at most. With 256, noise is as close to
# photographs of 3 072 numbers as with all correlations.
FACTOR_SIZE, MAX_RANK = 2**23, 256
# What is known of all classes counts as so many rows of each, and as a tenth of the number of features: best
# by the likelihood of held-out digits and garments, of 30 to 400 rows a class.
SHARED_ROWS = 5
# Of points in units of all rows; a smaller one is rounding.
SMALLEST_VARIANCE = 1e-20
# Numbers in the correlations of all classes, at most. Of more, all have the same ones.
MAX_CLASS_SIZE = 2**23


class Moments(NamedTuple):
    """Mean, standard deviation and correlation of a sample.

    Attributes
    ----------
    mean, std : ndarray of shape (n_features,)
        In float64. The deviation is exactly zero for a constant column.
    correlation : ndarray of shape (n_features, n_features) or None
        Shrunk towards the identity after Ledoit and Wolf, from 10 000 rows at most.
    factor : ndarray of shape (n_features, rank) or None
        In float32: F for a correlation of ``F F^T`` off the diagonal, from the leading directions of the
        shrunk covariance.
    """

    mean: np.ndarray
    std: np.ndarray
    correlation: np.ndarray | None = None
    factor: np.ndarray | None = None


class ClassMoments(NamedTuple):
    """Means of the classes of a sample, and deviations and correlations within them.

    Attributes
    ----------
    means : ndarray of shape (n_classes, n_features)
    moments : list of Moments
    weights : ndarray of shape (n_classes,) or None
        Number of rows of each, if they are clusters of a sample without labels.
    """

    means: np.ndarray
    moments: list[Moments]
    weights: np.ndarray | None = None


def moments_of(
    cloud: Rows,
    *,
    with_correlation: bool,
    with_factor: bool = False,
    per_feature: bool = True,
    encode: Callable[[np.ndarray], np.ndarray] | None = None,
    columns: Sequence[int] | np.ndarray = (),
) -> Moments:
    """Moments of a sample, which is read in chunks.

    Parameters
    ----------
    cloud : Rows
    with_correlation, with_factor : bool
    per_feature : bool
        Whether the factor's directions are those of standardised features. In one unit for all, pixels that
        hardly ever vary count little.
    encode : callable or None
        Changes some columns of rows. Their moments are estimated from 10 000 rows at most.
    columns : sequence of int
        Which.
    """
    n_rows = len(cloud)
    seen = [(chunk.sum(axis=0, dtype=np.float64), chunk.min(0), chunk.max(0)) for chunk in chunks(cloud)]
    sums, lowest, highest = (np.array(each) for each in zip(*seen, strict=True))
    lowest, highest = lowest.min(axis=0), highest.max(axis=0)
    # The mean of equal numbers is one of them, but for rounding.
    mean = np.where(lowest < highest, sums.sum(axis=0) / n_rows, lowest.astype(np.float64))
    largest = np.max([np.abs(chunk - mean).max(axis=0) for chunk in chunks(cloud)], axis=0)
    safe = np.where(largest > 0, largest, 1)
    square = sum(np.square((chunk - mean) / safe).sum(axis=0) for chunk in chunks(cloud))
    rounding = 10 * np.finfo(np.float64).eps * np.abs(mean)
    std = np.where(largest > rounding, safe * np.sqrt(square / n_rows), 0)
    check_scales(mean, std)
    if encode is None and not (with_correlation or with_factor):
        return Moments(mean, std)
    sample = some_rows(cloud, FACTOR_SIZE if with_factor else MAX_SIZE)
    sample = sample if encode is None else encode(sample)
    columns = np.asarray(columns, dtype=int)
    mean[columns], std[columns] = sample[:, columns].mean(axis=0), deviations_of(sample[:, columns])
    check_scales(mean, std)
    if not (with_correlation or with_factor):
        return Moments(mean, std)
    if with_factor:
        unit = std if per_feature else np.full_like(std, std.max())
        deviations = divide_in_place(sample - mean, unit).astype(np.float32)
        return Moments(mean, std, factor=_correlation_factor(deviations))
    return Moments(mean, std, _shrunk_correlation(divide_in_place(sample - mean, std)))


def class_moments_of(
    cloud, codes: np.ndarray, *, encode: Callable[[np.ndarray], np.ndarray] | None = None, **options: Any
) -> ClassMoments:
    """Moments of each class of a sample, with a part of those within all classes: few rows say little.

    Parameters
    ----------
    cloud : SampleRows
    codes : ndarray of int of shape (n_rows,)
        Class of each row. Each below the largest one has a row.
    encode : callable or None
    **options
        As in `moments_of`.
    """
    clouds = [cloud.take(np.flatnonzero(codes == code)) for code in range(codes.max() + 1)]
    n_features, with_factor = cloud.shape[1], options["with_factor"]
    rank = 2 * MAX_RANK if with_factor else n_features
    fit_in = len(clouds) * n_features * rank <= MAX_CLASS_SIZE
    plain = options | {"with_correlation": False, "with_factor": False}
    # A single row says nothing of correlations.
    own = [
        moments_of(rows, encode=encode, **(options if fit_in and len(rows) > 1 else plain)) for rows in clouds
    ]
    means = np.array([moments.mean for moments in own])
    max_size = (FACTOR_SIZE if with_factor else MAX_SIZE) // len(clouds)
    deviations = []
    for rows, mean in zip(clouds, means, strict=True):
        if len(rows) > 1:
            sample = some_rows(rows, max_size)
            sample = sample if encode is None else encode(sample)
            deviations.append((sample - mean) * np.sqrt(len(rows) / (len(rows) - 1)))
    if not deviations:
        whole = moments_of(cloud, encode=encode, **options)
        return ClassMoments(means, [whole] * len(clouds))
    shared = moments_of(np.concatenate(deviations), **(options | {"columns": ()}))
    weights = [_own_weight(len(rows), n_features) for rows in clouds]
    return ClassMoments(
        means, [_weighted(moments, shared, weight) for moments, weight in zip(own, weights, strict=True)]
    )


def mixture_moments_of(points: np.ndarray, shares: np.ndarray) -> ClassMoments:
    """The same of clusters to which points belong in part; those that have less than a point are left out.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_features)
    shares : ndarray of shape (n_clusters, n_points)
        Which part of each point belongs to each cluster; together one.
    """
    n_rows = shares.sum(axis=1)
    shares, n_rows = shares[n_rows >= 1], n_rows[n_rows >= 1]
    means = shares @ points / n_rows[:, None]
    deviations = points - means[:, None]
    weighted = deviations * np.sqrt(shares)[:, :, None]
    products = weighted.transpose(0, 2, 1) @ weighted
    n_free = np.maximum(n_rows - 1, 1)
    own = _unshrunk(means, products / n_free[:, None, None])
    shared = _unshrunk(means[0], products.sum(axis=0) / n_free.sum())
    lengths = np.square(divide_in_place(deviations, shared.std)).sum(axis=2)
    fourth = float(np.sum(shares * np.square(lengths)))
    shared = shared._replace(correlation=_shrunk(shared.correlation, fourth, n_free.sum()))
    found = _weighted(own, shared, _own_weight(n_rows, points.shape[1])[:, None])
    return ClassMoments(means, [Moments(*each) for each in zip(*found[:3], strict=True)], n_rows)


def _unshrunk(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """Moments of a covariance, or of several, whose tiny variances are rounding."""
    variances = np.diagonal(covariance, axis1=-2, axis2=-1)
    std = np.sqrt(np.where(variances > SMALLEST_VARIANCE, variances, 0))
    correlation = divide_in_place(divide_in_place(covariance.copy(), std[..., None]), std[..., None, :])
    places = np.arange(std.shape[-1])
    correlation[..., places, places] = 1
    return Moments(mean, std, correlation)


def _shrunk(correlation: np.ndarray, fourth: float, n_rows: float) -> np.ndarray:
    """After Ledoit and Wolf, from the sum of the fourth powers of lengths in standard deviations."""
    products, n_features = n_rows * correlation, len(correlation)
    shrunk = (1 - _ledoit_wolf(products, fourth, n_rows * n_features, n_rows, n_features)) * correlation
    np.fill_diagonal(shrunk, 1)
    return shrunk


def _own_weight(n_rows: Any, n_features: int) -> Any:
    """Of what the rows of a class say about it, beside what is known of all classes."""
    return (n_rows - 1) / (n_rows - 1 + SHARED_ROWS + n_features / 10)


def _weighted(own: Moments, shared: Moments, weight: Any) -> Moments:
    """Weighted means of correlations, and of logarithms of deviations: those of the classes can be far apart.

    A feature that is constant in the class has its part of the shared variance. Correlations of its own that
    are not known are the shared ones.
    """
    varies = (own.std > 0) & (shared.std > 0)
    ratio = np.divide(own.std, shared.std, where=varies, out=np.zeros_like(own.std))
    std = shared.std * np.where(ratio > 0, ratio**weight, np.sqrt(1 - weight))
    if own.factor is None and own.correlation is None:
        return shared._replace(mean=own.mean, std=std)
    if own.factor is not None and shared.factor is not None:
        weights = np.sqrt(np.array([weight, 1 - weight], dtype=np.float32))
        factor = np.concatenate([weights[0] * own.factor, weights[1] * shared.factor], axis=1)
        return Moments(own.mean, std, factor=factor)
    weight = np.expand_dims(weight, -1)
    return Moments(own.mean, std, weight * own.correlation + (1 - weight) * shared.correlation)


def deviations_of(values: np.ndarray) -> np.ndarray:
    """Standard deviation of each column, also where squares are no floats."""
    largest = np.abs(values).max(axis=0, initial=0).astype(np.float64)
    largest = np.where(largest > 0, largest, 1)
    return (values / largest).std(axis=0) * largest


def check_scales(*numbers: np.ndarray) -> None:
    """Refuse samples whose means, deviations, or ratios of these, are no floats."""
    if not all(np.isfinite(each).all() for each in numbers):
        raise ValueError(
            "X has values, or X and y have scales, whose means, deviations or their ratios are too large for "
            "a float. Look for mistakes among the largest and the smallest values, and divide columns by "
            "their size."
        )


def some_rows(cloud, max_size: int = MAX_SIZE) -> np.ndarray:
    """Rows for what needs many numbers at once: 10 000 at most, fewer of many features."""
    return cloud[row_places(cloud.shape, max_size)]


def row_places(shape: tuple[int, int], max_size: int = MAX_SIZE) -> np.ndarray:
    """Their places."""
    n_rows, n_features = shape
    n_used = min(MAX_ROWS, max(2, max_size // n_features))
    return np.sort(np.random.RandomState(0).permutation(n_rows)[:n_used])


def _shrunk_correlation(deviations: np.ndarray) -> np.ndarray:
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    std = np.sqrt(np.where(covariance.diagonal() > 0, covariance.diagonal(), 1))
    correlation = covariance / std / std[:, None]
    np.fill_diagonal(correlation, 1)
    return correlation


def _correlation_factor(deviations: np.ndarray) -> np.ndarray:
    """The same of many features, from the leading directions of their shrunk covariance alone."""
    n_rows, n_features = deviations.shape
    shrinkage = _shrinkage(deviations)
    rank = min(MAX_RANK, n_rows, n_features)
    _, roots, axes = randomized_svd(deviations, rank, random_state=0)
    factor = axes.T * (roots * np.float32(np.sqrt((1 - shrinkage) / n_rows)))
    variances = np.square(deviations).mean(axis=0)
    variances += shrinkage * (variances.mean() - variances)
    factor = divide_in_place(factor, np.sqrt(variances)[:, None])
    # Rounding must not give a feature more than its variance.
    return factor / np.maximum(1, np.linalg.norm(factor, axis=1, keepdims=True))


def _shrinkage(deviations: np.ndarray) -> float:
    """That of Ledoit and Wolf, from the smaller one of both matrices of products."""
    n_rows, n_features = deviations.shape
    products = deviations @ deviations.T if n_rows < n_features else deviations.T @ deviations
    lengths = np.square(deviations).sum(axis=1, dtype=np.float64)
    return _ledoit_wolf(products, np.square(lengths).sum(), lengths.sum(), n_rows, n_features)


def _ledoit_wolf(products: np.ndarray, fourth: float, trace: float, n_rows: float, n_features: int) -> float:
    """From the products of features, or of rows, and the sum of the fourth powers of the rows' lengths."""
    square = float(np.linalg.norm(products)) ** 2
    variation = fourth - square / n_rows
    excess = square - trace**2 / n_features
    return float(np.clip(variation / excess, 0, 1)) if excess > 0 else 1.0


def divide_in_place(deviations: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Deviations in a unit of each feature, zero where that is."""
    np.divide(deviations, unit, where=unit > 0, out=deviations)
    np.multiply(deviations, 0, where=unit <= 0, out=deviations)
    return deviations
