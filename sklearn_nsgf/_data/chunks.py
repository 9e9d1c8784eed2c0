"""A sample that comes in chunks, kept in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np

from sklearn_nsgf._frames import library_of
from sklearn_nsgf._sklearn import check_array


def joined(X, name: str):
    """The chunks of an iterator, as one map of a file that nobody else can see; or X itself.

    Chunks are held one at a time. The file goes with the array, or with the process.

    Parameters
    ----------
    X : object, or iterator of arrays or of pandas DataFrames
    name : str
        For errors.

    Returns
    -------
    X : object, numpy.memmap, or pandas DataFrame of one
    """
    if not isinstance(X, Iterator):
        return X
    n_rows, first, columns = 0, None, None
    with tempfile.TemporaryFile() as file:
        for chunk in X:
            numbers = _numbers_of(chunk, name)
            names = list(chunk.columns) if library_of(chunk) else None
            if first is None:
                first, columns = numbers[:0], names
            if numbers.shape[1:] != first.shape[1:] or numbers.dtype != first.dtype or names != columns:
                raise ValueError(
                    f"{name} is an iterator whose chunks differ: expected all like the first, of the shape "
                    f"{('n', *first.shape[1:])}, {first.dtype}, columns {columns}; got {numbers.shape}, "
                    f"{numbers.dtype}, columns {names}."
                )
            try:
                file.write(np.ascontiguousarray(numbers).data)
            except OSError as error:
                error.add_note(f"It is about the file for the chunks of {name} in {tempfile.gettempdir()!r}.")
                raise
            n_rows += len(numbers)
        if not n_rows:
            raise ValueError(f"{name} is an iterator without any rows: it may have been used before.")
        file.flush()
        rows = np.memmap(file, dtype=first.dtype, mode="r", shape=(n_rows, *first.shape[1:]))
    return rows if columns is None else type(chunk)(rows, columns=columns, copy=False)


def _numbers_of(chunk, name: str) -> np.ndarray:
    """A chunk as an array of numbers, of floats if it is a frame."""
    if library_of(chunk) == "polars" or not hasattr(chunk, "__array__"):
        raise TypeError(
            f"{name} is an iterator of {type(chunk).__module__}.{type(chunk).__name__}; expected chunks "
            "that are arrays or pandas DataFrames."
        )
    dtypes = [np.float64, np.float32] if library_of(chunk) else None
    numbers = check_array(chunk, name, dtype=dtypes, allow_nd=True, ensure_min_samples=0)
    if numbers.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} is an iterator of arrays of {numbers.dtype}; expected numbers. Encode categories, or "
            "call partial_fit with one DataFrame after the other."
        )
    return numbers
