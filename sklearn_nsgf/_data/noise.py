"""The normal source of a generation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sklearn_nsgf._data.moments import Moments
from sklearn_nsgf.flow import GaussianSampler


class Noise(NamedTuple):
    """A normal distribution in the units of the flow.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
    scale : ndarray of shape (n_features,) or (n_features, n_features)
        Standard deviations, or a root of the covariance.
    factor : ndarray of shape (n_features, rank) or None
        F, which adds ``F F^T`` to the covariance.
    """

    mean: np.ndarray
    scale: np.ndarray
    factor: np.ndarray | None

    @property
    def sampler(self) -> GaussianSampler:
        return GaussianSampler(self.scale, self.factor, self.mean)

    def draw(self, n_samples: int, rng: np.random.RandomState) -> np.ndarray:
        noise = rng.standard_normal((n_samples, len(self.scale)))
        noise = noise * self.scale if self.scale.ndim == 1 else noise @ self.scale.T
        if self.factor is not None:
            shared = rng.standard_normal((n_samples, self.factor.shape[1])).astype(np.float32)
            noise += shared @ self.factor.T
        return noise + self.mean


def scale_and_factor(moments: Moments, std: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale and factor of noise with the correlation of some moments, and with these deviations."""
    if moments.factor is not None:
        rest = np.sqrt(np.maximum(1 - np.square(moments.factor).sum(axis=1), 0))
        return std * rest, std.astype(np.float32)[:, None] * moments.factor
    if moments.correlation is None:
        return std, None
    # In float32, as matrices are most of a file.
    return (std[:, None] * _root(moments.correlation)).astype(np.float32), None


def _root(correlation: np.ndarray) -> np.ndarray:
    """A matrix R with ``R R^T`` the correlation."""
    try:
        return np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        # Of a perfect correlation, which is singular.
        variances, axes = np.linalg.eigh(correlation)
        return axes * np.sqrt(np.maximum(variances, 0))
