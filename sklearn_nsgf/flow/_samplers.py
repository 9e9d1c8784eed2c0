"""Where the minibatches of a flow come from.

A transport plan between two minibatches differs from that between the two distributions because
the minibatches do, and a network that learns from many of them learns the mean of all those
differences. So the minibatches are drawn to be as much alike as unbiased samples can be:
stratified rows and Sobol points in place of independent ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import torch
from torch.quasirandom import SobolEngine

# The k-d tree is grown on a subset: at most so many rows, and about so many numbers.
_TREE_ROWS, _TREE_SIZE = 2**14, 2**23
# To scramble a sequence of more features takes longer than the flow that starts there.
_MOST_SOBOL_FEATURES = 1024
# To begin a sequence takes as long for a few points as for many, and few are hardly more even than chance.
_FEWEST_SOBOL_POINTS = 32
# Numbers of an array that are read at a time.
_CHUNK_SIZE = 2**20
# Rows for each one drawn, above which there is no need to shuffle them all.
_SPARSE = 64


class Rows(Protocol):
    """An array of shape (n, n_features), or what makes its rows when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: Any) -> np.ndarray: ...


class Sampler(Protocol):
    """Draws rows of a distribution.

    Attributes
    ----------
    n_rows : int or float
        The most rows that one draw can give.
    n_features : int
    """

    n_rows: float
    n_features: int

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Return float32 rows of shape (n_samples, n_features)."""
        ...

    def draws_all(self, n_samples: int) -> bool:
        """Whether a draw of so many rows is all there are, and only their order is random."""
        ...


class ArraySampler:
    """Rows of an array, without replacement, spread evenly over the array.

    The rows are put in the order of a k-d tree, in which neighbours are near each other, and
    drawn at equal distances along that order after a shuffle among neighbours [1]_. Every row is
    drawn with the same probability, and every region gets its share of each draw. The array may lie
    on a disk: it is read in chunks once, and then row by row.

    Parameters
    ----------
    rows : ndarray of shape (n, n_features), or `Rows`
    weights : ndarray of shape (n,), default=None
        Positive numbers: a row is drawn that much more often than others, if need be several times.

    References
    ----------
    .. [1] Madow, Madow. On the Theory of Systematic Sampling, I. Annals of Mathematical Statistics
       15(1), 1944.
    """

    rows: Rows
    weights: np.ndarray | None
    n_rows: int
    n_features: int
    order: np.ndarray

    def __init__(self, rows: Rows, weights: np.ndarray | None = None) -> None:
        self.rows, self.weights = rows, weights
        self.n_rows = len(rows) if weights is None else min(len(rows), max(1, round(weights.sum())))
        self.n_features = rows[:1].shape[1]
        self.order = tree_order(rows)

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        if n_samples > self.n_rows:
            raise ValueError(f"{n_samples} rows were asked for, of {self.n_rows}.")
        if self.weights is None:
            drawn = self._draw_equally(n_samples, rng)
        else:
            drawn = self._draw_weighted(n_samples, self.weights[self.order], rng)
        return np.asarray(self.rows[self.order[drawn]], dtype=np.float32)

    def draws_all(self, n_samples: int) -> bool:
        return self.weights is None and n_samples == self.n_rows

    def _draw_equally(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        spacing = self.n_rows / n_samples
        steps = np.arange(n_samples)
        if spacing > _SPARSE:
            drawn = (spacing * (steps + rng.random(n_samples))).astype(int)
            return np.minimum(drawn, self.n_rows - 1)
        drawn = (spacing * (steps + rng.random())).astype(int)
        # Rounding can lead past the last row.
        return _shuffled_nearby(self.n_rows, spacing, rng)[np.minimum(drawn, self.n_rows - 1)]

    @staticmethod
    def _draw_weighted(n_samples: int, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n_rows = len(weights)
        places = _shuffled_nearby(n_rows, n_rows / n_samples, rng)
        reach = np.cumsum(weights[places])
        drawn = np.searchsorted(reach, reach[-1] / n_samples * (np.arange(n_samples) + rng.random()))
        return places[np.minimum(drawn, n_rows - 1)]


class GaussianSampler:
    """Normal rows: a scrambled Sobol sequence, new for each draw, up to 1 024 features and from 32 rows on.

    Parameters
    ----------
    std : ndarray of shape (n_features,)
        Standard deviation of each feature.
    root : ndarray of shape (n_features, n_features) or (n_features,), default=None
        A root R of the correlations, ``R R^T``, or of a diagonal.
    factor : ndarray of shape (n_features, n_factors), default=None
        A matrix F that adds ``F F^T`` to the correlations. Then the sequence is for F alone.
    mean : float or ndarray of shape (n_features,), default=0
    """

    std: np.ndarray
    root: np.ndarray | None
    factor: np.ndarray | None
    mean: np.ndarray
    n_rows: float
    n_features: int

    def __init__(
        self,
        std: np.ndarray,
        root: np.ndarray | None = None,
        factor: np.ndarray | None = None,
        mean: float | np.ndarray = 0.0,
    ) -> None:
        self.std, self.mean = (np.asarray(each, dtype=np.float32) for each in (std, mean))
        self.root, self.factor = (
            None if each is None else np.asarray(each, dtype=np.float32) for each in (root, factor)
        )
        self.n_rows, self.n_features = math.inf, len(self.std)

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        if self.factor is None:
            normal = self._rooted(self._draw_standard(n_samples, self.n_features, rng))
        else:
            # Points of a second sequence would not be independent of those of the first.
            rest = rng.standard_normal((n_samples, self.n_features), dtype=np.float32)
            shared = self._draw_standard(n_samples, self.factor.shape[1], rng)
            normal = self._rooted(rest) + shared @ self.factor.T
        return normal * self.std + self.mean

    def _rooted(self, normal: np.ndarray) -> np.ndarray:
        if self.root is None:
            return normal
        return normal * self.root if self.root.ndim == 1 else normal @ self.root.T

    def draws_all(self, n_samples: int) -> bool:
        return False

    @staticmethod
    def _draw_standard(n_samples: int, n_features: int, rng: np.random.Generator) -> np.ndarray:
        if n_features > _MOST_SOBOL_FEATURES or n_samples < _FEWEST_SOBOL_POINTS:
            return rng.standard_normal((n_samples, n_features), dtype=np.float32)
        engine = SobolEngine(n_features, scramble=True, seed=int(rng.integers(2**31)))
        half_spacing = 2.0 ** -(SobolEngine.MAXBIT + 1)
        uniform = engine.draw(n_samples, dtype=torch.float64) + half_spacing
        return torch.special.ndtri(uniform).float().numpy()


class PushforwardSampler:
    """Rows of another sampler, moved by a map, which may change from one draw to the next.

    Parameters
    ----------
    sampler : Sampler
    transport : callable
        Takes float32 rows of shape (n, n_features) and returns as many.
    """

    sampler: Sampler
    transport: Callable[[np.ndarray], np.ndarray]
    n_rows: float
    n_features: int

    def __init__(self, sampler: Sampler, transport: Callable[[np.ndarray], np.ndarray]) -> None:
        self.sampler, self.transport = sampler, transport
        self.n_rows, self.n_features = sampler.n_rows, sampler.n_features

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        return self.transport(self.sampler.draw(n_samples, rng))

    def draws_all(self, n_samples: int) -> bool:
        return False


class MixtureSampler:
    """Rows of several samplers, in proportion to their weights.

    A draw takes from each sampler its share of the rows, in the order of the samplers. A share that is not a
    whole number is rounded up or down at random: its mean is the share itself, and the sum is exact [1]_.

    Parameters
    ----------
    samplers : sequence of Sampler
    weights : sequence of float
        A positive number for each sampler. They need not sum to one; whole numbers make exact shares.

    Attributes
    ----------
    n_rows : int or float
        The largest draw that never asks a sampler for more rows than it can give; at least 1.

    References
    ----------
    .. [1] Madow, Madow. On the Theory of Systematic Sampling, I. Annals of Mathematical Statistics
       15(1), 1944.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf.flow import ArraySampler, MixtureSampler
    >>> samplers = [ArraySampler(np.zeros((30, 1))), ArraySampler(np.ones((50, 1)))]
    >>> mixture = MixtureSampler(samplers, [1, 3])
    >>> mixture.draw(8, np.random.default_rng(0)).ravel()
    array([0., 0., 1., 1., 1., 1., 1., 1.], dtype=float32)
    >>> mixture.n_rows  # 50 of them from the second sampler
    66
    """

    samplers: list[Sampler]
    shares: list[Fraction]
    n_rows: float
    n_features: int

    def __init__(self, samplers: Sequence[Sampler], weights: Sequence[float]) -> None:
        if not samplers or len(samplers) != len(weights):
            raise ValueError(
                f"{len(samplers)} samplers and {len(weights)} weights: expected a weight for each."
            )
        if not all(0 < weight < math.inf for weight in weights):
            raise ValueError(f"weights={list(weights)}: expected positive numbers.")
        if len({sampler.n_features for sampler in samplers}) > 1:
            numbers = [sampler.n_features for sampler in samplers]
            raise ValueError(f"The samplers have {numbers} features; expected the same number.")
        self.samplers, self.n_features = list(samplers), samplers[0].n_features
        # Fractions, since a rounded share could ask a sampler for one row too many.
        parts = [Fraction(float(weight)) for weight in weights]
        self.shares = [part / sum(parts) for part in parts]
        self.n_rows = min(
            math.inf if math.isinf(sampler.n_rows) else int(sampler.n_rows) // share
            for sampler, share in zip(self.samplers, self.shares, strict=True)
        )

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        if n_samples > self.n_rows:
            raise ValueError(f"{n_samples} rows were asked for, of {self.n_rows}.")
        # The shares one after the other on a line, and how many of n_samples equal steps end in each.
        start, ends = Fraction(rng.random()), itertools.accumulate(self.shares, initial=Fraction(0))
        n_before = [math.floor(start + int(n_samples) * end) for end in ends]
        counts = [after - before for before, after in itertools.pairwise(n_before)]
        drawn = [sampler.draw(n, rng) for sampler, n in zip(self.samplers, counts, strict=True) if n]
        return np.concatenate(drawn)

    def draws_all(self, n_samples: int) -> bool:
        return False  # shares are rounded at random


def _shuffled_nearby(n_rows: int, spacing: float, rng: np.random.Generator) -> np.ndarray:
    return np.argsort(np.arange(n_rows) + 2 * spacing * rng.random(n_rows))


def tree_order(rows: Rows) -> np.ndarray:
    """Indices of the rows in the order of a k-d tree: halves along the feature that varies most.

    The planes are those of a subset; all rows are then sorted into its cells.
    """
    n_rows, n_features = len(rows), rows[:1].shape[1]
    n_subset = max(1, min(n_rows, _TREE_ROWS, _TREE_SIZE // n_features))
    n_levels = int(math.log2(max(1, n_subset / 2)))
    n_subset = n_subset >> n_levels << n_levels
    subset = np.sort(np.random.default_rng(0).choice(n_rows, n_subset, replace=False))
    axes, planes = _grow_tree(np.asarray(rows[subset], dtype=np.float32), n_levels)
    cells = np.concatenate([_cells(np.asarray(chunk, np.float32), axes, planes) for chunk in chunks(rows)])
    return np.argsort(cells, kind="stable")


def _grow_tree(rows: np.ndarray, n_levels: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each level, the axis and the place of the plane in each of its cells."""
    axes, planes = [], []
    order = np.arange(len(rows))[None]
    for _ in range(n_levels):
        cells = rows[order]
        axis = cells.var(axis=1).argmax(axis=1)
        values = np.take_along_axis(cells, axis[:, None, None], axis=2)[..., 0]
        order = np.take_along_axis(order, values.argsort(axis=1, kind="stable"), axis=1)
        half = order.shape[1] // 2
        axes.append(axis)
        planes.append(rows[order[:, half], axis])
        order = order.reshape(-1, half)
    return axes, planes


def _cells(rows: np.ndarray, axes: list[np.ndarray], planes: list[np.ndarray]) -> np.ndarray:
    """Number of the cell in which each row lies."""
    cells, all_rows = np.zeros(len(rows), dtype=int), np.arange(len(rows))
    for axis, plane in zip(axes, planes, strict=True):
        cells = 2 * cells + (rows[all_rows, axis[cells]] >= plane[cells])
    return cells


def chunks(rows: Rows) -> Iterator[np.ndarray]:
    """The rows of an array, some at a time."""
    n_at_once = max(1, _CHUNK_SIZE // rows[:1].shape[1])
    return (rows[start : start + n_at_once] for start in range(0, len(rows), n_at_once))
