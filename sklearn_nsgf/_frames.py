"""Columns of pandas and polars DataFrames; neither package is imported for this."""

from __future__ import annotations

import sys

import numpy as np

# Of pandas and of polars.
CATEGORICAL_DTYPES = {"category", "bool", "boolean", "Categorical", "Enum", "Boolean", "bool[pyarrow]"}


def library_of(X) -> str | None:
    """pandas or polars, if `X` is a DataFrame of it."""
    for name in ("pandas", "polars"):
        package = sys.modules.get(name)
        if package is not None and isinstance(X, package.DataFrame):
            return name
    return None


def column_of(X, place: int):
    """A column of a DataFrame or of an array."""
    return X.iloc[:, place] if library_of(X) == "pandas" else X[:, place]


def rows_of(X, places):
    """Rows of a DataFrame, by places or a slice of them."""
    return X.iloc[places] if library_of(X) == "pandas" else X[places]


def dtype_of(column) -> str:
    """Name of a dtype, without the parameters that polars' have."""
    dtype = column.dtype
    return str(dtype.base_type() if hasattr(dtype, "base_type") else dtype)


def is_missing(value) -> bool:
    """None, NaN, NaT, or pandas.NA, which is not even unlike itself."""
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True


def values_of(column) -> np.ndarray:
    return column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)
