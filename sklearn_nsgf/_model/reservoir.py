"""A bounded, fair choice of the rows that an estimator has been shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sklearn_nsgf._data.labels import Classes
from sklearn_nsgf._data.layout import Layout
from sklearn_nsgf._data.rows import Sample, SampleRows

# Rows that are kept, and at least so many of each class that the network sees; more would only make files
# bigger.
MAX_ROWS, MIN_CLASS_ROWS = 10_000, 100


class Reservoir(NamedTuple):
    """Rows of a sample that came in parts: of all there were, each is kept with the same probability.

    Attributes
    ----------
    n_seen : list of int
        Number of rows that there were of each class that the network sees, or in all.
    rows : list of ndarray of shape (n_kept, n_features)
        Those kept, in the units of the data.
    codes : list of ndarray of int, or None
        Their classes, where there are any.
    low, high : ndarray of shape (n_features,)
        Least and largest values among the rows that are kept or were before.
    """

    n_seen: list[int]
    rows: list[np.ndarray]
    codes: list[np.ndarray] | None
    low: np.ndarray
    high: np.ndarray

    def sample(self) -> Sample:
        """All rows that are kept, as a sample."""
        rows = np.concatenate(self.rows)
        codes = None if self.codes is None else np.concatenate(self.codes)
        return Sample(SampleRows(rows, Layout(rows.shape[1:])), codes)

    def weight(self, code: int | None) -> float:
        """How many rows each kept one of a class stands for."""
        group = 0 if code is None or len(self.rows) == 1 else code
        return self.n_seen[group] / max(1, len(self.rows[group]))

    def draw(self, codes: np.ndarray | None, n_rows: int, dtype: np.dtype, rng) -> np.ndarray:
        """Rows drawn with replacement, of the given classes if the network sees them."""
        codes = np.zeros(n_rows, dtype=int) if codes is None else codes
        drawn = np.empty((n_rows, self.rows[0].shape[1]), dtype=dtype)
        for code in np.unique(codes):
            members, wanted = self.rows[code], codes == code
            # Infinite answers are refused.
            with np.errstate(over="ignore"):
                drawn[wanted] = members[rng.randint(len(members), size=wanted.sum())]
        return drawn


def count_rows(sample: Sample, classes: Classes, before: Sequence[int] | None) -> list[int]:
    """Rows of each class that the network sees, or of all, with those before."""
    counts = [round(len(group) * sample.n_each) for group in _groups(sample, classes)]
    return counts if before is None else [n + m for n, m in zip(counts, before, strict=True)]


def keep_rows(sample: Sample, classes: Classes, before: Reservoir | None, seed: int) -> Reservoir:
    """Choose among the rows of a sample and those kept before."""
    rng = np.random.RandomState(seed)
    n_seen = count_rows(sample, classes, None if before is None else before.n_seen)
    kept_rows, kept_codes = [], []
    for k, group in enumerate(_groups(sample, classes)):
        n_most = max(MIN_CLASS_ROWS, round(MAX_ROWS * n_seen[k] / sum(n_seen)))
        # Nothing first: a class may have no rows at all.
        rows, codes = [sample.rows[:0]], [None if sample.codes is None else sample.codes[:0]]
        if before is not None and before.n_seen[k]:
            n_old = round(n_most * before.n_seen[k] / n_seen[k])
            old = rng.permutation(len(before.rows[k]))[:n_old]
            rows.append(before.rows[k][old])
            codes.append(None if before.codes is None else before.codes[k][old])
            n_most -= len(old)
        if len(group):
            new = np.sort(rng.permutation(group)[:n_most])
            rows.append(sample.rows[new])
            codes.append(None if sample.codes is None else sample.codes[new])
        kept_rows.append(np.concatenate(rows))
        kept_codes.append(None if sample.codes is None else np.concatenate(codes))
    bounds = [] if before is None else [before.low[None], before.high[None]]
    known = [rows for rows in kept_rows + bounds if len(rows)]
    low = np.min([rows.min(axis=0) for rows in known], axis=0)
    high = np.max([rows.max(axis=0) for rows in known], axis=0)
    return Reservoir(n_seen, kept_rows, None if sample.codes is None else kept_codes, low, high)


def _groups(sample: Sample, classes: Classes) -> list[np.ndarray]:
    if not classes.are_seen:
        return [np.arange(sample.n_rows)]
    return [np.flatnonzero(sample.codes == code) for code in range(classes.n_seen)]
