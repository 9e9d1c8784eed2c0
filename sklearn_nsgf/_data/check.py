"""The arguments of estimators, checked. Nothing is written on an estimator here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import validate_data

from sklearn_nsgf._data.labels import Classes, check_classes_in_both, check_labels, find_classes
from sklearn_nsgf._data.layout import Layout, find_layout, float_dtype
from sklearn_nsgf._data.rows import FrameRows, Sample, SampleRows
from sklearn_nsgf._data.space import Space
from sklearn_nsgf._data.table import Table, find_table
from sklearn_nsgf._documentation import question
from sklearn_nsgf._frames import is_missing, library_of, rows_of
from sklearn_nsgf._sklearn import check_array, get_feature_names
from sklearn_nsgf._warn import warn_caller
from sklearn_nsgf.domains import UNLABELLED, any_array, is_target, source_mask

# Numbers of a map of a file, or of a larger DataFrame, that are checked at a time.
_PART_SIZE = 2**20
SAMPLE_OPTIONS = {"dtype": [np.float64, np.float32, np.uint8], "allow_nd": True}


class FlowData(NamedTuple):
    """What a fit was given.

    Attributes
    ----------
    source : Sample or None
        None stands for the normal distribution.
    target : Sample
    dtypes : (dtype, dtype)
        Of source and target as they came.
    layout : Layout
    classes : Classes
    table : Table
    """

    source: Sample | None
    target: Sample
    dtypes: tuple[np.dtype, np.dtype]
    layout: Layout
    classes: Classes
    table: Table

    @property
    def n_rows(self) -> int:
        """Rows of the smaller sample."""
        return min(sample.n_rows for sample in (self.source, self.target) if sample is not None)

    def thinned(self, n_most: int) -> FlowData:
        """At most so many rows of samples without classes."""
        if self.target.codes is not None:
            return self
        source = None if self.source is None else self.source.thinned(n_most)
        return self._replace(source=source, target=self.target.thinned(n_most))


def check_flow_data(estimator: BaseEstimator, X, y, sample_domain, known: Space | None) -> FlowData:
    """Check the arguments of `fit` and tell source from target.

    A `y` with as many dimensions as `X` is the target sample and X the source; `sample_domain` splits
    the rows of X. Without either, X is the target of a Gaussian source. A `y` of one dimension holds class
    labels.

    Parameters
    ----------
    estimator : BaseEstimator
        Its parameters say how images lie in an array and what labels are for.
    X, y, sample_domain
        As in `fit`.
    known : Space or None
        That of the fit before, if this one goes on from there.

    Raises
    ------
    ValueError
        If an array has NaN, infinite, complex or non-numeric entries, fewer than two rows, the
        wrong number of dimensions or different features, if the layout of images is ambiguous, or if
        labels are missing or unknown.
    TypeError
        If an array is sparse.
    """
    mode = estimator.label_mode
    if known is None:
        if is_target(y):
            _check_names_of_target(get_feature_names(y), get_feature_names(X))
        table = find_table(X, y if is_target(y) else None, estimator.categorical_features)
        X = _check_numbers(X, "X", table, estimator=estimator, ensure_min_samples=2, in_parts=True)
        layout = find_layout(X.shape[1:], estimator.image_shape, estimator.channel_axis)
    else:
        table, layout = known.table, known.layout
        X = _check_samples(estimator, X, known, ensure_min_samples=2, in_parts=True)
    dtype = _dtype_in(layout, X.dtype)
    rows = SampleRows(X, layout, dtype)
    if is_target(y):
        if sample_domain is not None:
            raise ValueError(
                "sample_domain splits the rows of X into source and target: y is then None or has a label "
                "for each row, and not a second sample."
            )
        if mode != "ignore" and np.shape(y)[1:] == (1,) != layout.sample_shape:
            raise ValueError(
                f"y has the shape {np.shape(y)}, which stands for a target sample: labels have one "
                "dimension. Pass y.ravel()."
            )
        if mode != "ignore":
            raise ValueError(
                f"label_mode={mode!r} needs a class for each row, and y is the target sample here. Use "
                "stack_domains(X_source, X_target, y_source, y_target) and fit(X, y, sample_domain=...)."
            )
        y = _check_target(y, layout, table, ensure_min_samples=2, in_parts=True)
        target_dtype = _dtype_in(layout, y.dtype)
        samples = Sample(rows, None), Sample(SampleRows(y, layout, target_dtype), None)
        return FlowData(*samples, (dtype, target_dtype), layout, Classes(mode), table)
    given = None if y is None else any_array(y)
    labels = check_labels(given, len(X), mode)
    if given is not None and labels is None and layout.sample_shape == (1,):
        _warn_of_a_target(given)
    classes = find_classes(labels, mode) if known is None else known.classes
    everything = Sample(rows, None if labels is None else classes.encode(labels))
    if sample_domain is None:
        if mode == "couple":
            raise ValueError(
                "label_mode='couple' pairs the classes of a source and a target sample, and here is only "
                "one: pass both in X, with sample_domain. For generation use label_mode='condition'."
            )
        return FlowData(None, everything, (float_dtype(dtype), dtype), layout, classes, table)
    samples = [everything.take(places) for places in _split_rows(sample_domain, len(X))]
    if labels is not None:
        check_classes_in_both(classes, *(sample.codes for sample in samples))
        if all(np.all(sample.codes == UNLABELLED) for sample in samples):
            raise ValueError(
                "All labels in y are -1, which means unlabelled: no row here has a known class. Pass rows "
                "with labels among them."
            )
    return FlowData(*samples, (dtype, dtype), layout, classes, table)


def _warn_of_a_target(ignored: np.ndarray) -> None:
    """Of one feature and without its second dimension, a target sample looks like labels."""
    if ignored.dtype.kind != "f":
        return
    # It takes floats for integers to see whether they are.
    with np.errstate(invalid="ignore"):
        kind = type_of_target(ignored, input_name="y")
    if kind == "continuous":
        warn_caller(
            "y has one dimension and is ignored, as labels would be, but its values look like a sample of "
            "one feature. If it is the target, pass y.reshape(-1, 1).",
            UserWarning,
        )


def _split_rows(sample_domain, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the source rows and of the target rows, two of each at least."""
    is_source = source_mask(sample_domain, n_rows, require=("source", "target"))
    places = np.flatnonzero(is_source), np.flatnonzero(~is_source)
    if min(map(len, places)) < 2:
        raise ValueError(
            f"sample_domain has {len(places[0])} source rows (>= 0) and {len(places[1])} target rows (< 0); "
            "expected at least 2 of each."
        )
    return places


def check_samples(estimator: BaseEstimator, X, space: Space, **options) -> np.ndarray:
    """Check samples of the user's shape for a fitted estimator: float32, float64, or uint8 images."""
    samples = _check_samples(estimator, X, space, **options)
    return samples.astype(_dtype_in(space.layout, samples.dtype), copy=False)


def _check_samples(estimator: BaseEstimator, X, space: Space, **options) -> np.ndarray:
    layout = space.layout
    # The names and the number of features; of a DataFrame first, since its columns are encoded by place.
    is_frame = library_of(X) is not None
    if is_frame:
        _check_names(estimator, X, space.table)
    samples = _check_numbers(X, "X", space.table, estimator=estimator, **options)
    if not is_frame and len(layout.sample_shape) == 1:
        validate_data(estimator, X, reset=False, skip_check_array=True)
    if samples.shape[1:] != layout.sample_shape:
        raise ValueError(
            f"X has samples of shape {samples.shape[1:]}, but {type(estimator).__name__} was fitted on "
            f"samples of shape {layout.sample_shape}."
        )
    return samples


def _check_names(estimator: BaseEstimator, X, table: Table) -> None:
    """Of the columns of a DataFrame, and how many there are."""
    try:
        validate_data(estimator, X, reset=False, skip_check_array=True)
    except ValueError as error:
        if table.names is None or not set(table.names) <= set(X.columns):
            raise
        names = list(table.names)
        raise ValueError(
            f"{str(error).rstrip()}\nX has the columns {list(X.columns)}, and the fit had {names}: pass "
            "these in this order, as X[estimator.feature_names_in_]." + question("faq-names")
        ) from error


def check_target(y, layout: Layout, table: Table, *, ensure_min_samples: int) -> np.ndarray:
    """Check a target sample against the features of X."""
    y = _check_target(y, layout, table, ensure_min_samples=ensure_min_samples)
    return y.astype(_dtype_in(layout, y.dtype), copy=False)


def _check_target(y, layout: Layout, table: Table, **options) -> np.ndarray:
    _check_names_of_target(get_feature_names(y), table.names)
    y = _check_numbers(y, "y (the target)", table, **options)
    if y.shape[1:] != layout.sample_shape:
        ours, theirs = (
            f"{shape[0]} features" if len(shape) == 1 else f"samples of shape {shape}"
            for shape in (y.shape[1:], layout.sample_shape)
        )
        raise ValueError(
            f"y has {ours} and X has {theirs.removesuffix(' features')}: y is the target "
            "sample, and source and target must have the same features. Two different spaces must "
            "be aligned first."
        )
    return y


def _check_names_of_target(names, expected) -> None:
    """Before the types of columns are compared; how many there are is said later."""
    if names is None or expected is None or len(names) != len(expected):
        return
    if list(names) != list(expected):
        raise ValueError(
            f"y (the target) has the columns {list(names)} and X has {list(expected)}: give both "
            "the same columns in the same order."
        )


def _check_numbers(X, name: str, table: Table, *, in_parts: bool = False, **options) -> np.ndarray:
    """`check_array` of codes and numbers, with errors that name the columns.

    With `in_parts` a map of a file stays what it is, and so does a large frame: their rows become floats when
    they are read.
    """
    if in_parts and library_of(X) is not None and len(X) > 1 and X.shape[0] * X.shape[1] > _PART_SIZE:
        return _check_frame(X, name, table, **options)
    if isinstance(X, np.ma.MaskedArray):
        raise ValueError(
            f"{name} is a masked array, and masked values would take part: expected complete rows. Pass "
            f"{name}.filled(...) with values that you trust, or leave out the rows with masked values."
        )
    numbers = table.encode(X, name)
    is_coded = numbers is not X
    options = {**SAMPLE_OPTIONS, **options}
    try:
        if in_parts and isinstance(X, np.memmap) and X.dtype.kind in "biuf" and not table.categories:
            for part in _parts(X.shape):
                check_array(X[part], name, allow_nd=True, dtype=None)
            options = {**options, "dtype": None, "ensure_all_finite": False}
        numbers = check_array(numbers, name, **options)
    except (TypeError, ValueError) as error:
        columns = _columns_to_blame(numbers, table)
        if not columns:
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        advice = "; ".join(dict.fromkeys(columns.values()))
        # What follows prints whole arrays, lists all dtypes, or names other estimators.
        sentence = re.split(r"\.\s|\n", str(error))[0]
        raise kind(
            f"{sentence}\nIt is about the columns {list(columns)} of {name}: {advice}; or leave the columns "
            "out."
        ) from error
    return numbers if is_coded else table.encode_numbers(numbers, name)


def _check_frame(X, name: str, table: Table, **options) -> FrameRows:
    to_numbers = partial(_check_numbers, name=name, table=table, **{**options, "ensure_min_samples": 0})
    dtype = np.result_type(*{to_numbers(rows_of(X, part)).dtype for part in _parts(X.shape)})
    return FrameRows(X, to_numbers, dtype)


def _parts(shape: tuple[int, ...]) -> Iterator[slice]:
    """Of the rows, each of about as many numbers as are checked at a time."""
    n_at_once = max(1, _PART_SIZE // max(1, math.prod(shape[1:])))
    return (slice(start, start + n_at_once) for start in range(0, shape[0], n_at_once))


def _columns_to_blame(X, table: Table) -> dict[Any, str]:
    """Names or numbers of the columns of a table that are not finite numbers, and what to do about each."""
    if len(getattr(X, "shape", ())) != 2 or not hasattr(X, "__array__"):
        return {}
    names = list(getattr(X, "columns", map(table.title, range(X.shape[1]))))
    columns = [X[name] for name in names] if hasattr(X, "columns") else list(np.asarray(X).T)
    advice = {name: _advice_for(column) for name, column in zip(names, columns, strict=True)}
    return {name: each for name, each in advice.items() if each}


def _advice_for(column) -> str:
    """What to do about a column, or nothing if it holds finite numbers."""
    values = np.asarray(column)
    if values.dtype.kind in "mM":
        return "encode dates as numbers, such as the days since a first one"
    if values.dtype.kind == "c":
        return "pass real and imaginary parts as columns of their own"
    if values.dtype.kind in "OSU":
        entries = [np.nan if is_missing(value) else value for value in values.tolist()]
        words = [value for value in entries if not _is_number(value)]
        if words:
            return _advice_for_words(words, len(entries))
        values = np.array([float(value) for value in entries])
    if np.isnan(values).any():
        n_missing = int(np.isnan(values).sum())
        return (
            f"impute the missing values ({n_missing} of {len(values)}), for example with "
            "sklearn.impute.SimpleImputer, or leave the rows out"
        )
    return "" if np.isfinite(values).all() else "leave out the rows with infinite values, or clip them first"


def _is_number(value) -> bool:
    """Also written as text."""
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _advice_for_words(words: list[Any], n_rows: int) -> str:
    if all(isinstance(word, str) and _is_number(word.replace(",", ".", 1)) for word in words):
        return f"the numbers have decimal commas, such as {words[0]!r}: read the table with decimal=','"
    if 2 * len(words) <= n_rows:
        return (
            f"{len(words)} of {n_rows} values are no numbers, such as {words[0]!r}: mend them, or make them "
            "missing, for example with pandas.to_numeric(..., errors='coerce'), and impute those"
        )
    return (
        "give categories a categorical dtype, or name them in categorical_features, and encode dates as "
        "numbers"
    )


def _dtype_in(layout: Layout, dtype: np.dtype) -> np.dtype:
    """What samples are taken as: grey values of images stay, and other integers are numbers."""
    keeps = dtype == np.float32 or (dtype == np.uint8 and layout.picture_shape is not None)
    return dtype if keeps else np.dtype(np.float64)


def check_times(t, name: str, n_samples: int | None = None) -> np.ndarray:
    """Return times between 0 and 1: a number, or if `n_samples` is given as many of them."""
    try:
        times = np.array(np.nan) if isinstance(t, str) else np.asarray(t, dtype=np.float64)
    except (TypeError, ValueError):
        times = np.array(np.nan)
    if times.shape not in [(), (n_samples,)] or not np.all((times >= 0) & (times <= 1)):
        each = "" if n_samples is None else f", or one for each of the {n_samples} rows of X"
        raise ValueError(f"{name} must be a number between 0 (source) and 1 (target){each}; got {t!r}.")
    return times if n_samples is None else np.broadcast_to(times, n_samples)
