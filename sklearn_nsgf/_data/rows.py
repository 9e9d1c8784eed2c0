"""Samples of an array as rows of floats, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sklearn_nsgf._data.layout import Layout, float_dtype
from sklearn_nsgf._frames import rows_of


class FrameRows:
    """Rows of a DataFrame as numbers, made when they are asked for.

    Its columns lie one by one, so that an array of all of it would be a copy.

    Parameters
    ----------
    frame : DataFrame of pandas or polars
    to_numbers : callable
        Makes an array of some rows.
    dtype : dtype
        That of all such arrays.
    """

    def __init__(self, frame, to_numbers: Callable, dtype: np.dtype) -> None:
        self.frame, self.to_numbers, self.dtype, self.shape = frame, to_numbers, dtype, frame.shape

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, places) -> np.ndarray:
        return self.to_numbers(rows_of(self.frame, places)).astype(self.dtype, copy=False)


class SampleRows:
    """Some samples of an array as rows of floats.

    The array is never copied as a whole: it may be a `numpy.memmap` larger than the memory.

    Parameters
    ----------
    X : ndarray of shape (n, *sample_shape), or FrameRows
    layout : Layout
    dtype : dtype, default=None
        That of the rows; by default the one that `layout` makes of the array's.
    places : ndarray of int, default=None
        Which samples; None for all.
    encode : callable, default=None
        Applied to the rows.
    """

    def __init__(self, X: np.ndarray, layout: Layout, dtype=None, places=None, encode=None) -> None:
        self.X, self.layout, self.places, self.encode = X, layout, places, encode
        self.dtype = float_dtype(X.dtype if dtype is None else dtype)

    def __len__(self) -> int:
        return len(self.X) if self.places is None else len(self.places)

    @property
    def shape(self) -> tuple[int, int]:
        """That of the rows, none of which is read for it."""
        return len(self), self.layout.n_features

    def __getitem__(self, places) -> np.ndarray:
        samples = self.X[places if self.places is None else self.places[places]]
        rows = self.layout.to_rows(samples).astype(self.dtype, copy=False)
        return rows if self.encode is None else self.encode(rows)

    def take(self, places: np.ndarray) -> SampleRows:
        places = places if self.places is None else self.places[places]
        return SampleRows(self.X, self.layout, self.dtype, places, self.encode)

    def encoded(self, encode) -> SampleRows:
        """The same rows in other units."""
        return SampleRows(self.X, self.layout, self.dtype, self.places, encode)


class Sample(NamedTuple):
    """One of the two samples of a fit.

    Attributes
    ----------
    rows : SampleRows
    codes : ndarray of int or None
        Index of each row's class, -1 for an unknown one; None where classes are ignored.
    n_each : float
        How many rows each of them stands for.
    """

    rows: SampleRows
    codes: np.ndarray | None
    n_each: float = 1.0

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    def take(self, places: np.ndarray) -> Sample:
        codes = None if self.codes is None else self.codes[places]
        return Sample(self.rows.take(places), codes, self.n_each)

    def thinned(self, n_most: int) -> Sample:
        """One row of each of so many equal parts, which stand for all rows; or all, if they are no more."""
        if self.n_rows <= n_most:
            return self
        spacing = self.n_rows / n_most
        places = spacing * (np.arange(n_most) + np.random.RandomState(0).random_sample(n_most))
        chosen = self.take(np.minimum(places.astype(int), self.n_rows - 1))
        return chosen._replace(n_each=spacing * self.n_each)
