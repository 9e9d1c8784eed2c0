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
    """Independent standard normal rows.

    Parameters
    ----------
    n_features : int
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self.n_rows = math.inf

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal((n_samples, self.n_features), dtype=np.float32)
