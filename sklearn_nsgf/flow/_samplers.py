"""Where the minibatches of a flow come from."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Sampler(Protocol):
    """Draws rows of a distribution."""

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Return at most `n_samples` float32 rows of n_features columns."""
        ...


class ArraySampler:
    """Rows of an array, without replacement.

    There are never more than the array has: a small cloud enters every minibatch whole.

    Parameters
    ----------
    rows : ndarray of shape (n, n_features)
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.permutation(len(self.rows))[:n_samples]
        return np.asarray(self.rows[chosen], dtype=np.float32)


class GaussianSampler:
    """Independent standard normal rows.

    Parameters
    ----------
    n_features : int
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal((n_samples, self.n_features), dtype=np.float32)
