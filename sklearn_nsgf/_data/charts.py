"""Columns through their own quantiles: values on one side, normal scores on the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

# Scores of equal values leave so much of their step free on either side, and at most so much probability:
# rounding must not lead out of it.
STEP_MARGIN, LARGEST_MARGIN = 0.01, 1e-6
# Values that have no more decimals than this, and repeat, are rounded to as many.
MAX_DECIMALS = 6
# Values are far that are at most this part of the rows, that many times farther from the median than the
# farthest of the others, and that many times the spread of the middle half away. With fewer rows there is no
# telling.
LARGEST_PART, GAP, N_SPREADS, MIN_ROWS = 0.05, 10.0, 10.0, 20
# Scores between which a point at an intermediate time is looked for, and how often the interval is halved.
LARGEST_SCORE, N_HALVINGS = 9.0, 60
# Golden ratio and the finaliser of splitmix64 [Steele, Lea, Flood, OOPSLA 2014].
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIXERS = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))


class Marginal(NamedTuple):
    """Quantile function of one column.

    Attributes
    ----------
    probabilities, values : ndarray of shape (n_nodes,)
        Both ascending; linear in between. A value that repeats has two nodes, the ends of its step. A value
        that occurs once is in the middle of its own.
    decimals : int or None
        Of the column, where its values repeat.
    """

    probabilities: np.ndarray
    values: np.ndarray
    decimals: int | None

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        return np.interp(probabilities, self.probabilities, self.values)

    def slopes(self, probabilities: np.ndarray) -> np.ndarray:
        """Derivatives of the quantiles; zero on a step and beyond the ends."""
        last = len(self.values) - 1
        right = np.searchsorted(self.probabilities, probabilities, "right")
        inside = (right > 0) & (right <= last)
        right = np.clip(right, 1, max(last, 1))
        rise, run = (np.append(each, each[-1]) for each in (self.values, self.probabilities))
        rise, run = rise[right] - rise[right - 1], run[right] - run[right - 1]
        return np.divide(rise, run, where=inside & (run > 0), out=np.zeros(np.shape(probabilities)))

    def steps(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest probability of each value; those beyond the ends are taken for the ends."""
        values = np.clip(values, self.values[0], self.values[-1])
        left = np.searchsorted(self.values, values, "left")
        right = np.searchsorted(self.values, values, "right") - 1
        between = np.interp(values, self.values, self.probabilities)
        found = right >= left
        low, high = (np.where(found, self.probabilities[place], between) for place in (left, right))
        return low, high

    def rounded(self, values: np.ndarray) -> np.ndarray:
        if self.decimals is None:
            return values
        # Larger ones have no decimals. Adding zero makes one of both zeros.
        return np.where(np.abs(values) < 2**52, np.round(values, self.decimals), values) + 0.0


def marginal_of(values: np.ndarray, *, is_category: bool = False) -> Marginal:
    """Quantile function of a column of numbers.

    Between far values and the others there is nothing, as between categories: each has a step, even if it
    occurs once.
    """
    distinct, counts = np.unique(values.astype(np.float64), return_counts=True)
    highest = np.cumsum(counts)
    ends = np.stack([highest - counts, highest]) / len(values)
    is_point = (counts == 1) & (not is_category)
    far = None if is_category else far_values(values)
    if far is not None:
        is_far = np.isin(distinct, far)
        is_point &= ~(is_far | np.append(is_far[1:], False) | np.append(False, is_far[:-1]))
    ends[:, is_point] = (highest[is_point] - 0.5) / len(values)
    is_node = np.stack([np.full(len(counts), True), ~is_point])
    probabilities, nodes = (each.T[is_node.T] for each in (ends, np.broadcast_to(distinct, ends.shape)))
    repeats = len(distinct) < len(values)
    return Marginal(probabilities, nodes, _decimals(distinct, values.dtype) if repeats else None)


def far_values(values: np.ndarray) -> np.ndarray | None:
    """Those beyond a gap, the farthest first; None if there are none."""
    if len(values) < MIN_ROWS:
        return None
    low, median, high = np.quantile(values.astype(np.float64), [0.25, 0.5, 0.75])
    order = np.argsort(-np.abs(values - median))
    distances = np.abs(values - median)[order]
    n_most = int(LARGEST_PART * len(values))
    is_gap = distances[:n_most] > GAP * distances[1 : n_most + 1]
    is_gap &= distances[:n_most] > N_SPREADS * (high - low)
    # Where nothing varies, a rare value is only rare.
    if high == low or not is_gap.any():
        return None
    return values[order[: np.flatnonzero(is_gap)[-1] + 1]]


def _decimals(values: np.ndarray, dtype: np.dtype) -> int | None:
    if np.abs(values).max() >= 2**52:
        return None
    for decimals in range(MAX_DECIMALS + 1):
        if (np.round(values, decimals).astype(dtype) == values.astype(dtype)).all():
            return decimals
    return None


class Charts:
    """Some columns of two samples as normal scores, each sample by its own quantiles.

    A score stands for ``(1 - t) Q_source + t Q_target`` at time t; a category is the source's before t = 1/2
    and the target's from then on. Scores of equal values are spread over their step by what else is in the
    row, and equal rows in turn: the same rows have the same scores.

    Parameters
    ----------
    columns : ndarray of int
    source : list of Marginal or None
        None for a column of a normal source, whose values are scores already.
    target : list of Marginal
    centres, units : ndarray of shape (n_columns,)
        Where the score 0 is, and what a score of 1 counts.
    are_categories : ndarray of bool of shape (n_columns,)
        Which columns have nothing between their values.
    """

    def __init__(
        self,
        columns: np.ndarray,
        source: list[Marginal | None],
        target: list[Marginal],
        centres: np.ndarray,
        units: np.ndarray,
        are_categories: np.ndarray,
    ) -> None:
        self.columns, self.source, self.target = columns, source, target
        self.centres, self.units, self.are_categories = centres, units, are_categories

    def encode(self, X: np.ndarray, t: np.ndarray | float) -> np.ndarray:
        """Rows at time t with scores in place of values."""
        answer = X.astype(np.float64)
        is_end = np.ndim(t) == 0 and t in (0, 1)
        places = _places_in_step(X, len(self.columns)) if is_end else None
        for k, column in enumerate(self.columns):
            marginal = (self.target if t == 1 else self.source)[k] if is_end else None
            if marginal is not None:
                low, high = marginal.steps(answer[:, column])
                margin = np.minimum(STEP_MARGIN * (high - low), LARGEST_MARGIN)
                scores = ndtri(low + margin + places[k] * (high - low - 2 * margin))
            elif is_end:
                continue
            else:
                scores = self._find(k, answer[:, column], np.asarray(t))
            answer[:, column] = self.centres[k] + self.units[k] * scores
        return answer

    def decode(self, U: np.ndarray, t: np.ndarray | float) -> np.ndarray:
        """Rows at time t from such with scores."""
        answer, t = U.astype(np.float64), np.asarray(t)
        for k, column in enumerate(self.columns):
            values = self._value(k, self._scores(k, U), t)
            for end, marginal in enumerate((self.source[k], self.target[k])):
                if marginal is not None:
                    values = np.where(t == end, marginal.rounded(values), values)
            answer[..., column] = values
        return answer

    def velocity(self, U: np.ndarray, V: np.ndarray, t: np.ndarray) -> np.ndarray:
        """dx/dt at times t, of shape (n,), from rows with scores and their velocities."""
        answer = V.astype(np.float64)
        for k, column in enumerate(self.columns):
            if self.are_categories[k]:
                answer[:, column] = 0
                continue
            scores = self._scores(k, U)
            probabilities, density = ndtr(scores), np.exp(-np.square(scores) / 2) / np.sqrt(2 * np.pi)
            (source, source_slope), (target, target_slope) = (
                (U[:, column], self.units[k])
                if marginal is None
                else (marginal.quantiles(probabilities), marginal.slopes(probabilities) * density)
                for marginal in (self.source[k], self.target[k])
            )
            slope = (1 - t) * source_slope + t * target_slope
            answer[:, column] = target - source + slope * V[:, column] / self.units[k]
        return answer

    def _scores(self, k: int, U: np.ndarray) -> np.ndarray:
        return (U[..., self.columns[k]] - self.centres[k]) / self.units[k]

    def _value(self, k: int, scores: np.ndarray, t: np.ndarray) -> np.ndarray:
        probabilities = ndtr(scores)
        target = self.target[k].quantiles(probabilities)
        if self.source[k] is self.target[k]:
            return target
        if self.source[k] is None:
            source = self.centres[k] + self.units[k] * scores
        else:
            source = self.source[k].quantiles(probabilities)
        if self.are_categories[k]:
            return np.where(t < 0.5, source, target)
        return np.where(t == 1, target, source + t * (target - source))

    def _find(self, k: int, values: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Scores that stand for values at time t; the middle, if there are several."""
        ends = []
        for is_below in (np.less, np.less_equal):
            low, high = np.full(len(values), -LARGEST_SCORE), np.full(len(values), LARGEST_SCORE)
            for _ in range(N_HALVINGS):
                middle = (low + high) / 2
                below = is_below(self._value(k, middle, t), values)
                low, high = np.where(below, middle, low), np.where(below, high, middle)
            ends.append((low + high) / 2)
        return (ends[0] + ends[1]) / 2


def _places_in_step(X: np.ndarray, n_columns: int) -> np.ndarray:
    """A number between 0 and 1 for each column and row, the same for the same row; equal rows in turn."""
    # Adding zero makes one of both zeros.
    bits = (np.ascontiguousarray(X, dtype=np.float64) + 0.0).view(np.uint64)
    code = np.zeros(len(X), dtype=np.uint64)
    for column in bits.T:
        code = _mixed(code ^ column)
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.append(True, code[order][1:] != code[order][:-1]))
    occurrence = np.empty(len(X), dtype=np.uint64)
    occurrence[order] = np.arange(len(X)) - np.repeat(starts, np.diff(np.append(starts, len(X))))
    # Multiples of the golden ratio fill the interval evenly; each column of equal rows starts elsewhere and
    # has its own irrational step.
    places = np.empty((n_columns, len(X)))
    for k in range(n_columns):
        step = _mixed(np.uint64(k)) | np.uint64(1) if k else _GOLDEN
        with np.errstate(over="ignore"):
            place = _mixed(code + np.uint64(k) * _GOLDEN) + occurrence * step
        places[k] = (place >> np.uint64(11)) * 2.0**-53
    return places


def _mixed(code):
    """Bits that look random, of integers that may not."""
    with np.errstate(over="ignore"):
        code = code + _GOLDEN
        for shift, factor in _MIXERS:
            code = (code ^ (code >> np.uint64(shift))) * factor
        return code ^ (code >> np.uint64(31))
