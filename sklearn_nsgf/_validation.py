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
        n_labels = len(X) if y is None else len(_any_array(y))
        if n_labels != len(X):
            raise ValueError(
                f"y has one dimension and {n_labels} entries for {len(X)} rows of X. If it is a target "
                "sample of one feature, pass y.reshape(-1, 1); labels need one entry a row."
            )
        return FlowData(None, X)
    return FlowData(X, check_target(estimator, y, ensure_min_samples=2))


def is_target(y) -> bool:
    """Whether `y` is a target sample, not None or labels of one dimension."""
    return y is not None and _any_array(y).ndim > 1


def _any_array(y) -> np.ndarray:
    options = {"ensure_2d": False, "allow_nd": True, "dtype": None, "ensure_all_finite": False}
    return check_array(y, input_name="y", **options)


def check_target(estimator: BaseEstimator, y, *, ensure_min_samples: int) -> np.ndarray:
    """Check a target sample against the features that `estimator` was shown in X."""
    names = get_feature_names(y)
    y = check_array(y, dtype=FLOAT_DTYPES, ensure_min_samples=ensure_min_samples, input_name="y (the target)")
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
    moving one cloud moves the answer and changes nothing else. A feature that is constant in both
    clouds is zero in the flow and comes back as the constant.

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
        self.source_collapsed = not source_std.any()
        # The larger one is taken out first: squares of extreme scales overflow.
        largest = np.maximum(source_std, target_std)
        if not per_feature:
            largest[:] = largest.max()
        relative = np.divide(
            [source_std, target_std], largest, where=largest > 0, out=np.zeros((2, largest.size))
        )
        variance = np.square(relative).mean(axis=0)
        if not per_feature:
            variance[:] = variance.mean()
        self.scale = np.sqrt(variance) * largest
        self.noise_std = self._divide(source_std)
        self.target_rms_distance = float(np.sqrt(2 * np.square(self._divide(target_std)).sum()))

    @property
    def drift(self) -> np.ndarray:
        """Velocity of the centre, in the data's units."""
        return self.target_mean - self.source_mean

    def centre(self, t: np.ndarray | float) -> np.ndarray:
        """Centre of the flow at time t, in the data's units."""
        return self.source_mean + np.multiply.outer(t, self.drift)

    def encode(self, X: np.ndarray, t: np.ndarray | float) -> np.ndarray:
        """Points at time t, in the units of the flow."""
        with np.errstate(over="ignore"):
            return self._divide(X - self.centre(t)).astype(X.dtype, copy=False)

    def decode(self, Z: np.ndarray, t: np.ndarray | float, dtype: np.dtype) -> np.ndarray:
        """Points at time t, in the units of the data."""
        with np.errstate(over="ignore", invalid="ignore"):
            return (Z * self.scale + self.centre(t)).astype(dtype, copy=False)

    def _divide(self, deviations: np.ndarray) -> np.ndarray:
        """Deviations in units of the scale, zero where the scale is."""
        return np.divide(deviations, self.scale, where=self.scale > 0, out=np.zeros_like(deviations))


def check_times(t, name: str, n_samples: int | None = None) -> np.ndarray:
    """Return times between 0 and 1: a number, or if `n_samples` is given as many of them."""
    try:
        times = np.array(np.nan) if isinstance(t, str) else np.asarray(t, dtype=np.float64)
    except (TypeError, ValueError):
        times = np.array(np.nan)
    if times.shape not in [(), (n_samples,)] or not np.all((times >= 0) & (times <= 1)):
        each = "" if n_samples is None else f", or one for each of the {n_samples} rows of X"
        raise ValueError(f"{name} must be a number between 0 (source) and 1 (target){each}; got {t!r}.")
    return times if n_samples is None else np.broadcast_to(times, n_samples)


def _mean_and_std(cloud: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation in float64; exactly zero for a constant column."""
    mean = cloud.mean(axis=0, dtype=np.float64)
    largest = np.abs(cloud - mean).max(axis=0)
    safe = np.where(largest > 0, largest, 1)
    std = safe * np.sqrt(np.square((cloud - mean) / safe).mean(axis=0))
    rounding = 10 * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(largest > rounding, std, 0)
