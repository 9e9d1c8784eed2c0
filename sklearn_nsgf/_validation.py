"""Arrays in, checked; what the flow is solved in, and back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from sklearn_nsgf._sklearn import get_feature_names

FLOAT_DTYPES = [np.float64, np.float32]


class FlowData(NamedTuple):
    """The two samples of a fit.

    Attributes
    ----------
    source : ndarray of shape (n_source, n_features) or None
        None stands for the standard normal distribution.
    target : ndarray of shape (n_target, n_features)
    """

    source: np.ndarray | None
    target: np.ndarray


def check_flow_data(estimator: BaseEstimator, X, y) -> FlowData:
    """Check the arguments of `fit` and tell source from target.

    A `y` of two dimensions is the target sample and X the source. Without it, and with a `y` of one
    dimension (class labels, which are ignored), X is the target of a Gaussian source.

    Raises
    ------
    ValueError
        If an array has NaN, infinite, complex or non-numeric entries, fewer than two rows, the
        wrong number of dimensions or different features.
    TypeError
        If an array is sparse.
    """
    X = validate_data(estimator, X, dtype=FLOAT_DTYPES, ensure_min_samples=2)
    if not is_target(y):
        return FlowData(None, X)
    return FlowData(X, check_target(estimator, y, ensure_min_samples=2))


def is_target(y) -> bool:
    """Whether `y` is a target sample, not None or labels of one dimension."""
    if y is None:
        return False
    options = {"ensure_2d": False, "allow_nd": True, "dtype": None, "ensure_all_finite": False}
    return check_array(y, input_name="y", **options).ndim > 1


def check_target(estimator: BaseEstimator, y, *, ensure_min_samples: int) -> np.ndarray:
    """Check a target sample against the features that `estimator` was shown in X."""
    names = get_feature_names(y)
    y = check_array(
        y, dtype=FLOAT_DTYPES, ensure_min_samples=ensure_min_samples, input_name="y (the target)"
    )
    if y.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"y has {y.shape[1]} features and X has {estimator.n_features_in_}: y is the target "
            "sample, and source and target must have the same features. Two different spaces must "
            "be aligned first."
        )
    expected = getattr(estimator, "feature_names_in_", None)
    if names is not None and expected is not None and list(names) != list(expected):
        raise ValueError(
            f"y (the target) has the columns {list(names)} and X has {list(expected)}: give both "
            "the same columns in the same order."
        )
    return y


class FlowScaling:
    """From the data's units to those of the flow and back.

    Each cloud is centred on its own mean and both are divided by one scale, the root of the mean
    of the two variances within the clouds. In between the centre moves at constant speed, so that
    moving one cloud moves the answer and changes nothing else.

    Parameters
    ----------
    source : ndarray of shape (n_source, n_features) or None
        None for a normal source scaled like the target.
    target : ndarray of shape (n_target, n_features)
    per_feature : bool
        One scale for each feature, or one for all.
    """

    def __init__(self, source: np.ndarray | None, target: np.ndarray, *, per_feature: bool) -> None:
        clouds = [target if source is None else source, target]
        (self.source_mean, source_std), (self.target_mean, target_std) = map(_mean_and_std, clouds)
        # The larger one is taken out first: squares of extreme scales overflow.
        largest = np.maximum(source_std, target_std)
        if not per_feature:
            largest = np.full_like(largest, largest.max())
        largest[largest == 0] = 1
        variance = ((source_std / largest) ** 2 + (target_std / largest) ** 2) / 2
        if not per_feature:
            variance = np.full_like(variance, variance.mean())
        self.scale = np.where(variance > 0, np.sqrt(variance), 1) * largest
        self.target_rms_distance = float(np.sqrt(2 * ((target_std / self.scale) ** 2).sum()))

    @property
    def drift(self) -> np.ndarray:
        """Velocity of the centre, in the data's units."""
        return self.target_mean - self.source_mean

    def centre(self, t: np.ndarray | float) -> np.ndarray:
        """Centre of the flow at time t, in the data's units."""
        return self.source_mean + np.multiply.outer(t, self.drift)

    def encode(self, X: np.ndarray, t: np.ndarray | float) -> np.ndarray:
        return ((X - self.centre(t)) / self.scale).astype(X.dtype, copy=False)

    def decode(self, Z: np.ndarray, t: np.ndarray | float, dtype: np.dtype) -> np.ndarray:
        return (Z * self.scale + self.centre(t)).astype(dtype, copy=False)


def _mean_and_std(cloud: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation in float64; exactly zero for a constant column."""
    mean = cloud.mean(axis=0, dtype=np.float64)
    largest = np.abs(cloud - mean).max(axis=0)
    safe = np.where(largest > 0, largest, 1)
    std = safe * np.sqrt(np.square((cloud - mean) / safe).mean(axis=0))
    rounding = 10 * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(largest > rounding, std, 0)
