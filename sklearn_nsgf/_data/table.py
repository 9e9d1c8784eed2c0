"""A table of a user: its categories become codes, and answers become a table again."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse

from sklearn_nsgf._documentation import question
from sklearn_nsgf._frames import (
    CATEGORICAL_DTYPES,
    column_of,
    dtype_of,
    is_missing,
    library_of,
    values_of,
)
from sklearn_nsgf._sklearn import get_feature_names


class Table(NamedTuple):
    """What is known of the columns of two samples, besides numbers.

    Attributes
    ----------
    library : {"pandas", "polars"} or None
        None for arrays.
    names : ndarray of str, or None
        As scikit-learn has them.
    columns : list
        Names of a frame's columns, of any kind; empty for arrays.
    n_columns : int
    categories : dict of int to ndarray
        Values of each categorical column, in the order of their codes.
    dtypes : (list of str, list of str)
        Of the columns of source and target; empty for arrays.
    """

    library: str | None = None
    names: np.ndarray | None = None
    columns: list = []
    n_columns: int = 0
    categories: dict[int, np.ndarray] = {}
    dtypes: tuple[list[str], list[str]] = ([], [])

    @property
    def is_needed(self) -> bool:
        """Whether an array of floats cannot hold an answer: a frame has categories."""
        return self.library is not None and bool(self.categories)

    def encode(self, X, name: str):
        """A frame or an array of objects as floats, with codes in place of categories; else X itself."""
        if not self.categories:
            return X
        kind = getattr(getattr(X, "dtype", None), "kind", "")
        if kind in ("U", "S", "T"):
            raise ValueError(
                f"{name} is an array of text, in which numbers are text too; expected a DataFrame, or an "
                "array of objects: np.asarray(rows, dtype=object)."
            )
        if not (library_of(X) or kind == "O" or _is_mixed(X)):
            return X
        X = _as_table(X, name)
        if X.shape[1:] != (self.n_columns,):
            # Not what was fitted: whoever checks the numbers says so.
            return X
        titles = [f"column {self.title(place)!r} of {name}" for place in range(X.shape[1])]
        return np.column_stack(
            [
                self._codes(place, title, column_of(X, place))
                if place in self.categories
                else _floats(column_of(X, place), title)
                for place, title in enumerate(titles)
            ]
        )

    def encode_numbers(self, X: np.ndarray, name: str) -> np.ndarray:
        """An array of numbers with codes in place of categories."""
        if self.categories and X.shape[1:] == (self.n_columns,):
            X = X.copy()
            for place in self.categories:
                X[:, place] = self._codes(place, f"column {self.title(place)!r} of {name}", X[:, place])
        return X

    def title(self, place: int):
        """Name or number of a column."""
        return self.columns[place] if place < len(self.columns) else place

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """Rows with categories in place of codes, for arrays."""
        if not self.categories:
            return rows
        values = {place: self._values(rows, place) for place in self.categories}
        numeric = all(each.dtype.kind in "biuf" for each in self.categories.values())
        answer = rows.astype(rows.dtype if numeric else object)
        for place, column in values.items():
            answer[:, place] = column
        return answer

    def to_frame(self, rows: np.ndarray, t: float, library: str, index=None):
        """Rows at time t as a frame, with the types of the nearer sample; in between, numbers are floats."""
        package = importlib.import_module(library)
        dtypes = self.dtypes[int(t >= 0.5)] if library == self.library else []
        dtypes = dtypes or [None] * len(self.columns)
        columns = [
            self._series(package, rows, place, dtype, t in (0, 1)) for place, dtype in enumerate(dtypes)
        ]
        if library == "polars":
            return package.DataFrame(dict(zip(map(str, self.columns), columns, strict=True)))
        frame = package.DataFrame(dict(enumerate(columns)), index=index)
        frame.columns = self.columns
        return frame

    def _codes(self, place: int, title: str, column) -> np.ndarray:
        found, inverse = _distinct(column, title)
        categories = self.categories[place].tolist()
        codes = {value: code for code, value in enumerate(categories)}
        unknown = [value for value in found.tolist() if value not in codes]
        if unknown:
            raise ValueError(
                f"The {title} has the categories {unknown[:5]}, which the fit has not seen; expected some of "
                f"{categories[:10]}. Fit with rows of them, leave these rows out, or pass a DataFrame if the "
                "fit had one." + question("faq-unseen-category")
            )
        return np.array([codes[value] for value in found.tolist()], dtype=np.float64)[inverse]

    def _values(self, rows: np.ndarray, place: int) -> np.ndarray:
        categories = self.categories[place]
        codes = np.clip(np.rint(rows[:, place]), 0, len(categories) - 1)
        return categories[codes.astype(int)]

    def _series(self, package, rows: np.ndarray, place: int, dtype: str | None, is_end: bool):
        if place in self.categories:
            return _category_series(package, self._values(rows, place), self.categories[place], dtype)
        values = rows[:, place]
        kind = "" if dtype is None or not is_end else dtype.lower().split("[")[0]
        if "int" in kind:
            limits = np.iinfo(kind)
            # The largest 64-bit integers are no floats, and the next float is beyond them.
            largest = (
                float(limits.max) if int(float(limits.max)) <= limits.max else np.nextafter(limits.max, 0)
            )
            values = np.clip(np.rint(values), limits.min, largest).astype(kind)
        elif "float" not in kind:
            return values
        if package.__name__ == "polars":
            return package.Series(values).cast(getattr(package, dtype))
        return package.Series(values).astype(dtype).array


def _category_series(package, values: np.ndarray, categories: np.ndarray, dtype: str | None):
    if package.__name__ == "polars":
        kinds = {
            "Categorical": package.Categorical,
            "Enum": package.Enum(categories.tolist()) if dtype == "Enum" else None,
        }
        return package.Series(values.tolist(), dtype=kinds.get(dtype))
    if dtype in ("category", "ordered category"):
        return package.Categorical(values, categories=categories, ordered=dtype != "category")
    try:
        return package.Series(values).astype(dtype or values.dtype).array
    except (TypeError, ValueError):
        # The other sample has categories that are none of this type.
        return package.Series(values).array


def find_table(X, y, categorical_features) -> Table:
    """What is to be known of the columns of two samples; `y` is None if there is only one.

    Parameters
    ----------
    X, y : array-like or frame
    categorical_features : None, "from_dtype", or sequence of names, places or booleans

    Raises
    ------
    ValueError
        If it does not fit the columns, or a category is missing.
    """
    if X is None:
        raise ValueError("X is None; expected an array, a DataFrame, or a list of rows of one length.")
    samples = [
        each if issparse(each) else _as_table(each, name)
        for each, name in ((X, "X"), (y, "y (the target)"))
        if each is not None
    ]
    dtypes = [
        [_dtype_name(column_of(each, place)) for place in range(each.shape[1])]
        if library_of(each) and library_of(each) == library_of(X)
        else []
        for each in samples
    ]
    columns = list(X.columns) if library_of(X) else []
    table = Table(library_of(X), get_feature_names(X), columns, dtypes=(dtypes[0], dtypes[-1]))
    if any(issparse(each) or len(each.shape) < 2 or 0 in each.shape for each in samples):
        # Whoever checks the numbers says so.
        return table
    places = set(_given_places(samples[0], table, categorical_features))
    if isinstance(categorical_features, str):
        places = {
            place
            for each in samples
            if library_of(each)
            for place in range(each.shape[1])
            if dtype_of(column_of(each, place)) in CATEGORICAL_DTYPES
        }
    if samples[0].shape[1:] != samples[-1].shape[1:]:
        return table
    if places and library_of(samples[0]) != library_of(samples[-1]):
        raise TypeError(
            f"X is a {type(X).__module__}.{type(X).__name__} and y (the target) a {type(y).__module__}."
            f"{type(y).__name__}; expected both of one kind, since they have categories."
        )
    categories = {
        place: _categories([column_of(each, place) for each in samples], f"column {table.title(place)!r}")
        for place in sorted(places)
    }
    return table._replace(n_columns=samples[0].shape[1], categories=categories)


def _dtype_name(column) -> str:
    is_ordered = dtype_of(column) == "category" and column.cat.ordered
    return "ordered category" if is_ordered else dtype_of(column)


def _given_places(X, table: Table, given) -> list[int]:
    """Places of categorical columns from names, places or a mask."""
    if given is None or isinstance(given, str) or len(given) == 0:
        return []
    if len(X.shape) > 2:
        raise ValueError(
            "categorical_features is for tables, and X holds images; expected None or 'from_dtype'."
        )
    n_columns, wrong = X.shape[1], None
    given = np.array([*given, None], dtype=object)[:-1] if any(map(np.ndim, given)) else np.asarray(given)
    if given.dtype == bool and given.shape == (n_columns,):
        return np.flatnonzero(given).tolist()
    if given.dtype.kind in "iu" and given.ndim == 1:
        wrong = [place for place in given.tolist() if not -n_columns <= place < n_columns]
        if not wrong:
            return [place % n_columns for place in given.tolist()]
    if given.dtype.kind in "UO" and given.ndim == 1:
        names = [] if table.names is None else table.names.tolist()
        wrong = [name for name in given.tolist() if name not in names]
        if not wrong:
            return [names.index(name) for name in given.tolist()]
    found, columns = given.tolist() if wrong is None else wrong, f"0 to {n_columns - 1}"
    if table.names is not None:
        columns = table.names.tolist()
    raise ValueError(
        f"categorical_features has {found}, and X has the columns {columns}; expected their names or places, "
        "a mask, 'from_dtype' or None."
    )


def _as_table(X, name: str):
    if library_of(X) or isinstance(X, np.ndarray):
        return X
    try:
        return np.asarray(X, dtype=object if _is_mixed(X) else None)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is a {type(X).__name__} of rows of different lengths, or of no rows; expected an array, "
            "a DataFrame, or a list of rows of one length."
        ) from error


def _is_mixed(X) -> bool:
    """Whether NumPy would turn the numbers of a list into text."""
    return isinstance(X, (list, tuple)) and any(isinstance(each, str) for row in X for each in np.ravel(row))


def _categories(columns: Sequence, title: str) -> np.ndarray:
    """All values, in the order of a categorical dtype or sorted."""
    found_in_each = []
    for column in columns:
        if dtype_of(column) == "category":
            found = column.cat.categories.to_numpy()
        elif dtype_of(column) == "Enum":
            found = column.dtype.categories.to_numpy()
        else:
            found = _distinct(column, title)[0]
        found_in_each.append(found.tolist())
    are_text = [all(isinstance(value, str) for value in found) for found in found_in_each]
    if not all(are_text) and any(are_text):
        raise TypeError(
            f"The {title} holds {found_in_each[0][:5]} in X and {found_in_each[-1][:5]} in y (the target); "
            "expected text, or numbers, in both. Give both samples the same types and categories."
        )
    # The order of the longer list first: the other one is often a part of it.
    values = list(
        dict.fromkeys(value for each in sorted(found_in_each, key=len, reverse=True) for value in each)
    )
    if any(map(np.ndim, values)):
        raise TypeError(
            f"The {title} has categories that are sequences, such as {values[0]!r}: the argument must be a "
            "string or a number."
        )
    as_array = np.array(values)
    return as_array if as_array.dtype.kind in "biuf" else np.array(values, dtype=object)


def _distinct(column, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of a categorical column, none of them missing, and the place of each row's among them."""
    values = values_of(column)
    if values.dtype.kind == "f":
        missing = np.isnan(values)
    elif values.dtype == object:
        missing = np.array([is_missing(value) for value in values.tolist()], dtype=bool)
    else:
        missing = np.zeros(len(values), dtype=bool)
    if missing.any():
        raise ValueError(
            f"The {title} has {missing.sum()} missing values (NaN or None); expected a category in each row. "
            "Give them a category of their own, such as 'unknown', or impute them, for example with "
            "sklearn.impute.SimpleImputer(strategy='most_frequent')."
        )
    try:
        found, inverse = np.unique(values, return_inverse=True)
        set(found.tolist())
    except TypeError as error:
        raise TypeError(
            f"The {title} has values of several kinds, or that are no categories ({error}): the argument "
            "must be a string or a number, the same in all rows."
        ) from error
    return found, inverse


def _floats(column, title: str) -> np.ndarray:
    values = values_of(column)
    is_number = values.dtype.kind in "biuf"
    if values.dtype.kind == "O":
        is_number = all(isinstance(value, (Real, np.bool_)) or is_missing(value) for value in values.tolist())
        values = np.array([np.nan if is_missing(value) else value for value in values.tolist()])
    if not is_number:
        raise ValueError(
            f"The {title} has values that are not numbers (dtype {values.dtype}). If they are categories, "
            "name it in categorical_features, or give it a categorical dtype; encode dates as numbers."
        )
    return values.astype(np.float64)
