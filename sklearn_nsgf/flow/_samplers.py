"""Where the minibatches of a flow come from."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np


class Sampler(Protocol):
    """Draws rows of a distribution.

    Attributes
    ----------
    n_rows : int or float
        The most rows that one draw can give.
    """

    n_rows: float

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Return float32 rows of shape (n_samples, n_features)."""
        ...


class ArraySampler:
    """Rows of an array, without replacement.

    Parameters
    ----------
    rows : ndarray of shape (n, n_features)
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.n_rows = len(rows)

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.choice(len(self.rows), n_samples, replace=False)
        return np.asarray(self.rows[chosen], dtype=np.float32)


class GaussianSampler:
    """Independent normal rows with mean zero.

    Parameters
    ----------
    std : ndarray of shape (n_features,)
        Standard deviation of each feature.
    """

    def __init__(self, std: np.ndarray) -> None:
        self.std = np.asarray(std, dtype=np.float32)
        self.n_rows = math.inf

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        return self.std * rng.standard_normal((n_samples, len(self.std)), dtype=np.float32)
