"""The units in which a flow is solved, and the blur in them."""

from __future__ import annotations

import copy

import numpy as np

from sklearn_nsgf._data.rows import SampleRows
from sklearn_nsgf.flow import blur_schedule
from sklearn_nsgf.flow._samplers import chunks


class Units:
    """Between the data's units and the flow's.

    Each cloud is centred on its own mean and both are divided by one scale, the root of the mean
    of the two variances within the clouds. In between the centre moves at constant speed, so that
    moving one cloud moves the answer and changes nothing else. A feature that is constant in both
    clouds is zero in the flow and comes back as the constant.

    Parameters
    ----------
    source : ndarray of shape (n_source, n_features), SampleRows or None
        None for a normal source scaled like the target.
    target : ndarray of shape (n_target, n_features) or SampleRows
    per_feature : bool
        One scale for each feature, or one for all.
    """

    def __init__(
        self, source: SampleRows | np.ndarray | None, target: SampleRows | np.ndarray, *, per_feature: bool
    ) -> None:
        self.target_mean, target_std = _mean_and_std(target)
        self.source_mean, source_std = self.target_mean, target_std
        if source is not None:
            self.source_mean, source_std = _mean_and_std(source)
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
        # Features that are constant in both clouds come back as they were.
        self.spread = np.where((source_std > 0) | (target_std > 0), self.scale, 0)
        self.noise_std = self._divide(source_std)
        self.target_rms_distance = float(np.sqrt(2 * np.square(self._divide(target_std)).sum()))

    @property
    def n_features(self) -> int:
        return len(self.scale)

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
            return (Z * self.spread + self.centre(t)).astype(dtype, copy=False)

    def at_target(self) -> Units:
        """The units of a flow that starts where this one ends."""
        units = copy.copy(self)
        units.source_mean = self.target_mean
        return units

    def _divide(self, deviations: np.ndarray) -> np.ndarray:
        """Deviations in units of the scale, zero where the scale is."""
        return np.divide(deviations, self.scale, where=self.scale > 0, out=np.zeros_like(deviations))


def _mean_and_std(cloud: SampleRows | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation in float64; exactly zero for a constant column."""
    n_rows = len(cloud)
    mean = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in chunks(cloud)) / n_rows
    largest = np.max([np.abs(chunk - mean).max(axis=0) for chunk in chunks(cloud)], axis=0)
    safe = np.where(largest > 0, largest, 1)
    square = sum(np.square((chunk - mean) / safe).sum(axis=0) for chunk in chunks(cloud))
    rounding = 10 * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(largest > rounding, safe * np.sqrt(square / n_rows), 0)


def blur_in_units(blur, units: Units, *, auto_factor: float = 1.0):
    """Blur in the units of the flow.

    Parameters
    ----------
    blur : "auto", float or (float, float)
        As a fraction of the target's RMS pairwise distance.
    units : Units
    auto_factor : float, default=1.0
        What "auto" is multiplied by.
    """
    resolved = np.asarray(blur_fraction(blur, units, auto_factor)) * (units.target_rms_distance or 1.0)
    return float(resolved) if resolved.ndim == 0 else tuple(map(float, resolved))


def blur_fraction(blur, units: Units, auto_factor: float = 1.0):
    """Blur as a fraction of the target's RMS pairwise distance.

    "auto" is what measurements on data of 2, 3, 11 and 64 features gave.
    """
    if isinstance(blur, str):
        return auto_factor * min(0.025 * (units.n_features / 2) ** 0.4, 0.15)
    blur_schedule(blur, 2)
    return np.asarray(blur, dtype=float)
