"""Finds the frame of two samples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from sklearn_nsgf._data.charts import Charts, far_values, marginal_of
from sklearn_nsgf._data.clusters import cluster_moments_of, values_apart
from sklearn_nsgf._data.frame import Frame
from sklearn_nsgf._data.moments import class_moments_of, deviations_of, moments_of, some_rows
from sklearn_nsgf._data.rows import SampleRows
from sklearn_nsgf.flow._samplers import Rows, tree_order

# Rows of each sample and folds from which the kind is chosen.
CHOICE_ROWS, N_FOLDS = 1000, 5
# Features of which all correlations are estimated, at most. Noise of more has a factor in their place.
CORRELATED_FEATURES = 1024
# Part of the values on either side that the centre and the unit of scores leave out.
TRIM = 0.01
# A column is read as scores if a value has this part of its rows, and more than by chance a rounded number
# has of a hundred, if so many rows share their value with others, or if its excess kurtosis, and that of one
# of its clusters, is above this and three standard errors of a normal sample's.
LARGE_PART, FEWEST_EQUAL, SHARED_PART, LARGE_KURTOSIS = 0.02, 4, 0.5, 1.0


class Columns(NamedTuple):
    """How the columns are read.

    Attributes
    ----------
    per_feature : bool
        Whether each has a unit of its own.
    are_categories, are_scores : bool ndarray of shape (n_features,)
        Codes of categories; and, these among them, columns with normal scores in place of values.
    """

    per_feature: bool
    are_categories: np.ndarray
    are_scores: np.ndarray


def find_frame(
    source: SampleRows | None,
    target: SampleRows,
    kind: str,
    *,
    per_feature: bool,
    categorical: Sequence[int] = (),
    codes: np.ndarray | None = None,
) -> Frame:
    """The frame of two samples, chosen if `kind` is "auto".

    Parameters
    ----------
    source : SampleRows or None
        None for a normal source.
    target : SampleRows
    kind : {"auto", "none", "shift", "scale", "linear", "quantile"}
    per_feature : bool
        Whether each feature has a unit of its own.
    categorical : sequence of int
        Columns of codes, which are always read as scores.
    codes : ndarray of int of shape (n_target,), default=None
        Class of each row of the target, where each class is to have a normal source of its own.

    Raises
    ------
    ValueError
        If means and deviations, or their ratios, are too large for floats.
    """
    are_categories = np.zeros(target.shape[1], dtype=bool)
    are_categories[list(categorical)] = True
    columns = Columns(per_feature, are_categories, are_categories)
    # The moments tell whether numbers are too large for floats, and a frame that makes such is not chosen.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if kind == "auto":
            if per_feature:
                columns = columns._replace(are_scores=are_categories | _are_unlike_normal(source, target))
            kind = _choose(source, target, columns)
        return _frame_of(source, target, kind, columns, codes)


def frame_like(
    frame: Frame, source: SampleRows | None, target: SampleRows, codes: np.ndarray | None = None
) -> Frame:
    """The frame of other rows of the same columns: of the same kind, with the same columns as scores.

    It has as many clusters, where there are so many rows.
    """
    are_scores, are_categories = np.zeros((2, target.shape[1]), dtype=bool)
    if frame.charts is not None:
        are_scores[frame.charts.columns] = True
        are_categories[frame.charts.columns] = frame.charts.are_categories
    columns = Columns(frame.per_feature, are_categories, are_scores)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _frame_of(source, target, frame.kind, columns, codes, frame.n_clusters)


def _are_unlike_normal(source: Rows | None, target: Rows) -> np.ndarray:
    """Columns that repeat values or have heavy tails, in either sample, and vary in the target."""
    clouds = [some_rows(each) for each in (source, target) if each is not None]
    unlike = [[_is_unlike_normal(values) for values in cloud.T] for cloud in clouds]
    return np.any(unlike, axis=0) & (np.ptp(clouds[-1], axis=0) > 0)


def _is_unlike_normal(values: np.ndarray) -> bool:
    _, counts = np.unique(values, return_counts=True)
    repeated = counts[counts > 1]
    if len(counts) == 1:
        return False
    n_large = max(FEWEST_EQUAL, LARGE_PART * len(values))
    if repeated.sum() >= SHARED_PART * len(values) or repeated.max(initial=0) >= n_large:
        return True
    if far_values(values) is not None:
        return True
    # Powers of extreme numbers overflow.
    scaled = np.sort(values.astype(np.float64) / np.abs(values).max())
    # A small cluster makes the kurtosis of a column large and is no tail: scores would close the gap.
    return _has_heavy_tails(scaled) and any(map(_has_heavy_tails, values_apart(scaled)))


def _has_heavy_tails(values: np.ndarray) -> bool:
    squares = np.square(values - values.mean())
    if not squares.any():
        return False
    excess_kurtosis = np.square(squares).mean() / squares.mean() ** 2 - 3
    return bool(excess_kurtosis > LARGE_KURTOSIS + 3 * np.sqrt(24 / len(values)))


def _frame_of(
    source: Rows | None,
    target: Rows,
    kind: str,
    columns: Columns,
    codes: np.ndarray | None = None,
    n_clusters: int | None = None,
) -> Frame:
    n_features = len(columns.are_scores)
    places = np.flatnonzero(columns.are_scores | (kind == "quantile"))
    correlated, is_wide = kind in ("linear", "quantile"), n_features > CORRELATED_FEATURES
    charts, ends = None, [(target, 1)] if source is None else [(source, 0), (target, 1)]
    if len(places):
        are_categories = columns.are_categories[places]
        charts = _charts_of(source, target, places, are_categories, is_shared=kind == "none")
    options = {
        "with_correlation": correlated and not is_wide,
        "with_factor": correlated and is_wide and source is None,
        "per_feature": columns.per_feature,
        "columns": places,
    }
    encoders = [charts and partial(charts.encode, t=t) for _, t in ends]
    moments = [
        moments_of(sample, encode=encode, **options)
        for (sample, _), encode in zip(ends, encoders, strict=True)
    ]
    classes = None
    if source is None and correlated:
        if codes is not None:
            classes = class_moments_of(target, codes, encode=encoders[-1], **options)
        else:
            options |= {"encode": encoders[-1], "n_clusters": n_clusters}
            classes = cluster_moments_of(target, moments[-1], **options)
    return Frame(
        moments[0],
        moments[-1],
        kind=kind,
        per_feature=columns.per_feature,
        charts=charts,
        classes=classes,
    )


def _charts_of(
    source: Rows | None, target: Rows, places: np.ndarray, are_categories: np.ndarray, *, is_shared: bool
) -> Charts:
    """Charts of some columns; one for both samples, if they are not to move."""
    clouds = [some_rows(each)[:, places] for each in (source, target) if each is not None]
    if is_shared and source is not None:
        clouds = [np.concatenate(clouds)] * 2
    marginals = [
        [
            marginal_of(values, is_category=is_category)
            for values, is_category in zip(cloud.T, are_categories, strict=True)
        ]
        for cloud in clouds
    ]
    if source is None:
        # Normal, but for categories: there is nothing between them.
        marginals = [
            [
                each if is_category else None
                for each, is_category in zip(*marginals, are_categories, strict=True)
            ],
            *marginals,
        ]
    centres, units = _centres_and_units(clouds[-1])
    return Charts(places, marginals[0], marginals[-1], centres, units, are_categories)


def _centres_and_units(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column without its outermost values, or with them if others are equal."""
    # Squares of extreme numbers overflow.
    largest = np.abs(values).max(axis=0).astype(np.float64)
    largest = np.where(largest > 0, largest, 1.0)
    values = values / largest
    low, high = np.quantile(values, [TRIM, 1 - TRIM], axis=0)
    trimmed = np.clip(values, low, high)
    units = np.where(np.ptp(trimmed, axis=0) > 0, trimmed.std(axis=0), values.std(axis=0))
    return trimmed.mean(axis=0) * largest, np.where(units > 0, units, 1.0) * largest


def _choose(source: SampleRows | None, target: SampleRows, columns: Columns) -> str:
    """The kind of frame that brings held-out rows of the source nearest to those of the target.

    "linear", unless another one is better by more than a standard error over the folds. "quantile" is among
    them for a single column, whose optimal map it is. With several it often starts nearer to the target, too,
    but scores close the gaps between clusters, which a network then has to open again.
    """
    if source is None:
        return "linear"
    if len(columns.are_scores) > CORRELATED_FEATURES:
        return "shift"
    kinds = ["none", "shift", "scale", "linear"]
    if len(columns.are_scores) == 1 and columns.per_feature:
        kinds.insert(0, "quantile")
    rng = np.random.RandomState(0)
    clouds = [cloud[np.sort(rng.permutation(len(cloud))[:CHOICE_ROWS])] for cloud in (source, target)]
    if min(map(len, clouds)) < 2 * N_FOLDS:
        return "shift"
    folds = [_folds(cloud, rng) for cloud in clouds]
    distances = np.empty((N_FOLDS, len(kinds)))
    for k in range(N_FOLDS):
        training, test = (
            [cloud[choose(fold, k)] for cloud, fold in zip(clouds, folds, strict=True)]
            for choose in (np.not_equal, np.equal)
        )
        _, unit = _centres_and_units(training[1])
        unit = unit if columns.per_feature else unit.max()
        for j, kind in enumerate(kinds):
            frame = _frame_of(*training, kind, columns)
            moved = frame.decode(frame.encode(test[0], 0.0), 1.0, float)
            distances[k, j] = _distance(moved / unit, test[1] / unit)
            if kind == "quantile":
                distances[k, j] += _sampling_distance(test[1] / unit, min(map(len, training)))
    gains = distances[:, -1:] - distances
    gains[:, ~np.isfinite(gains).all(axis=0)] = 0
    mean, error = gains.mean(axis=0), gains.std(axis=0, ddof=1) / np.sqrt(N_FOLDS)
    # Of equal ones the last.
    return kinds[np.where(mean > error, mean, 0)[::-1].argmax() * -1 - 1]


def _folds(cloud: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Number of the fold of each row: neighbours are in different ones, so that all folds are alike."""
    std = deviations_of(cloud)
    order = tree_order(np.divide(cloud, std, where=std > 0, out=np.zeros_like(cloud)))
    folds = np.empty(len(cloud), dtype=int)
    for start in range(0, len(cloud), N_FOLDS):
        group = order[start : start + N_FOLDS]
        folds[group] = rng.permutation(N_FOLDS)[: len(group)]
    return folds


def _sampling_distance(X: np.ndarray, n_rows: int) -> float:
    """Expected energy distance of so many rows to the distribution that they come from.

    A quantile map repeats the rows that it has seen. Even folds do not show that: they repeat each other.
    """
    return _mean_distance(X) / n_rows


def _distance(X: np.ndarray, Y: np.ndarray) -> float:
    """Energy distance less the part that all candidates share."""
    return 2 * cdist(X, Y).mean() - _mean_distance(X)


def _mean_distance(X: np.ndarray) -> float:
    """Of two different rows."""
    return cdist(X, X).sum() / (len(X) * (len(X) - 1))
