"""The source of a generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from sklearn_nsgf._data.moments import Moments
from sklearn_nsgf.flow import GaussianSampler, MixtureSampler, PushforwardSampler

# Normal scores between which a column of a mixture is mapped linearly, and those of each of its parts at
# which its distribution function is read for that.
SCORES, FINE_SCORES = np.linspace(-8, 8, 513), np.linspace(-8, 8, 129)


class Noise(NamedTuple):
    """A normal distribution in the units of the flow.

    Attributes
    ----------
    mean, std : ndarray of shape (n_features,)
    root : ndarray of shape (n_features, n_features), (n_features,) or None
        R for correlations of ``R R^T``, or what `factor` leaves of each deviation; None for no correlations.
    factor : ndarray of shape (n_features, rank) or None
        F, which adds ``F F^T`` to the correlations.
    """

    mean: np.ndarray
    std: np.ndarray
    root: np.ndarray | None = None
    factor: np.ndarray | None = None

    @property
    def n_features(self) -> int:
        return len(self.mean)

    @property
    def sampler(self) -> GaussianSampler:
        return GaussianSampler(self.std, self.root, self.factor, self.mean)

    def draw(self, n_samples: int, rng: np.random.RandomState) -> np.ndarray:
        noise = rng.standard_normal((n_samples, self.n_features))
        if self.root is not None:
            noise = noise * self.root if self.root.ndim == 1 else noise @ self.root.T
        if self.factor is not None:
            shared = rng.standard_normal((n_samples, self.factor.shape[1])).astype(np.float32)
            noise += shared @ self.factor.T
        return noise * self.std + self.mean


class NormalColumns(NamedTuple):
    """Makes some columns of a mixture normal, each by the mixture's own distribution function.

    Attributes
    ----------
    columns : ndarray of int
    std : ndarray of shape (n_columns,)
        Deviations of the normal columns, whose means are 0.
    quantiles : ndarray of shape (n_columns, n_scores)
        Of the mixture, at the probabilities of `SCORES`.
    """

    columns: np.ndarray
    std: np.ndarray
    quantiles: np.ndarray

    def __call__(self, Z: np.ndarray) -> np.ndarray:
        moved = Z.copy()
        for column, std, quantiles in zip(*self, strict=True):
            moved[:, column] = std * np.interp(Z[:, column], quantiles, SCORES)
        return moved


def normal_columns_of(
    noises: list[Noise], weights: np.ndarray, columns: np.ndarray, std: np.ndarray
) -> NormalColumns:
    """The map that makes columns of a mixture normal with mean 0 and the given deviations."""
    quantiles = np.empty((len(columns), len(SCORES)))
    shares = weights / weights.sum()
    for k, column in enumerate(columns):
        means, stds = (np.array([getattr(each, name)[column] for each in noises]) for name in ("mean", "std"))
        points = np.unique(means + np.multiply.outer(FINE_SCORES, stds))
        scores = np.divide(
            points[:, None] - means, stds, where=stds > 0, out=np.zeros((len(points), len(means)))
        )
        below, above = ndtr(scores) @ shares, ndtr(-scores) @ shares
        # The smaller one of both has no rounding errors to speak of.
        found = np.where(below < above, ndtri(below), -ndtri(above))
        quantiles[k] = np.interp(SCORES, found, points)
    return NormalColumns(columns, std, quantiles)


class NoiseMixture(NamedTuple):
    """Normal distributions around several means.

    Attributes
    ----------
    noises : list of Noise
    weights : ndarray of shape (n_noises,)
        Positive; they need not sum to one.
    normal_columns : NormalColumns or None
        Applied to what is drawn.
    """

    noises: list[Noise]
    weights: np.ndarray
    normal_columns: NormalColumns | None = None

    @property
    def n_features(self) -> int:
        return self.noises[0].n_features

    @property
    def sampler(self) -> MixtureSampler | PushforwardSampler:
        mixture = MixtureSampler([noise.sampler for noise in self.noises], self.weights)
        return mixture if self.normal_columns is None else PushforwardSampler(mixture, self.normal_columns)

    def draw(self, n_samples: int, rng: np.random.RandomState) -> np.ndarray:
        codes = rng.choice(len(self.noises), n_samples, p=self.weights / self.weights.sum())
        drawn = draw_each(self.noises, codes, rng)
        return drawn if self.normal_columns is None else self.normal_columns(drawn)


def draw_each(
    noises: Sequence[Noise | NoiseMixture], codes: np.ndarray, rng: np.random.RandomState
) -> np.ndarray:
    """A point of the noise with each of these indices."""
    points = np.empty((len(codes), noises[0].n_features))
    for code in np.unique(codes):
        is_member = codes == code
        points[is_member] = noises[code].draw(is_member.sum(), rng)
    return points


def root_and_factor(moments: Moments) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Root and factor of noise with the correlations of some moments, in float32: most of a file."""
    if moments.factor is not None:
        return np.sqrt(np.maximum(1 - np.square(moments.factor).sum(axis=1), 0)), moments.factor
    if moments.correlation is None:
        return None, None
    try:
        root = np.linalg.cholesky(moments.correlation)
    except np.linalg.LinAlgError:
        # Of a perfect correlation, which is singular.
        variances, axes = np.linalg.eigh(moments.correlation)
        root = axes * np.sqrt(np.maximum(variances, 0))
    return root.astype(np.float32), None
