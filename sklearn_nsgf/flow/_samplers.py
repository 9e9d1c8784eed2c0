"""Where the minibatches of a flow come from.

A transport plan between two minibatches differs from that between the two distributions because
the minibatches do, and a network that learns from many of them learns the mean of all those
differences. So the minibatches are drawn to be as much alike as unbiased samples can be:
stratified rows and Sobol points in place of independent ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch.quasirandom import SobolEngine

# Strata finer than this matter to no minibatch, and cost time to find.
_MAX_CELLS = 8192


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
    """Rows of an array, without replacement, spread evenly over the array.

    The rows are put in the order of a k-d tree, in which neighbours are near each other, and
    drawn at equal distances along that order after a shuffle among neighbours [1]_. Every row is
    drawn with the same probability, and every region gets its share of each draw.

    Parameters
    ----------
    rows : ndarray of shape (n, n_features)

    References
    ----------
    .. [1] Madow, Madow. On the Theory of Systematic Sampling, I. Annals of Mathematical Statistics
       15(1), 1944.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.n_rows = len(rows)
        self.order = _tree_order(rows)

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        if n_samples > self.n_rows:
            raise ValueError(f"{n_samples} rows were asked for, of {self.n_rows}.")
        spacing = self.n_rows / n_samples
        places = np.argsort(np.arange(self.n_rows) + 2 * spacing * rng.random(self.n_rows))
        drawn = (spacing * (np.arange(n_samples) + rng.random())).astype(int)
        # Rounding can lead past the last row.
        chosen = self.order[places[np.minimum(drawn, self.n_rows - 1)]]
        return np.asarray(self.rows[chosen], dtype=np.float32)


class GaussianSampler:
    """Normal rows with mean zero: a scrambled Sobol sequence, new for each draw.

    Parameters
    ----------
    std : ndarray of shape (n_features,)
        Standard deviation of each feature.
    """

    def __init__(self, std: np.ndarray) -> None:
        self.std = np.asarray(std, dtype=np.float32)
        self.n_rows = math.inf

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        n_features = len(self.std)
        if n_features > SobolEngine.MAXDIM:
            return self.std * rng.standard_normal((n_samples, n_features), dtype=np.float32)
        engine = SobolEngine(n_features, scramble=True, seed=int(rng.integers(2**31)))
        half_spacing = 2.0 ** -(SobolEngine.MAXBIT + 1)
        uniform = engine.draw(n_samples, dtype=torch.float64) + half_spacing
        return self.std * torch.special.ndtri(uniform).float().numpy()


class PushforwardSampler:
    """Rows of another sampler, moved by a map: where a second flow starts.

    Parameters
    ----------
    sampler : Sampler
    transport : callable
        Takes float32 rows of shape (n, n_features) and returns as many.
    """

    def __init__(self, sampler: Sampler, transport: Callable[[np.ndarray], np.ndarray]) -> None:
        self.sampler, self.transport = sampler, transport
        self.n_rows = sampler.n_rows

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        return self.transport(self.sampler.draw(n_samples, rng))


def _tree_order(rows: np.ndarray) -> np.ndarray:
    """Indices of the rows in the order of a k-d tree: halves along the feature that varies most."""
    leaf_size = max(2, len(rows) // _MAX_CELLS)
    order, stack = [], [np.arange(len(rows))]
    while stack:
        cell = stack.pop()
        if len(cell) <= leaf_size:
            order.append(cell)
            continue
        axis = rows[cell].var(axis=0).argmax()
        half = len(cell) // 2
        cell = cell[np.argpartition(rows[cell, axis], half)]
        stack += [cell[half:], cell[:half]]
    return np.concatenate(order)
