"""Arrays in, checked; what the flow is solved in, and back."""

from __future__ import annotations

import copy
import math
import sys
import warnings
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_array, validate_data

from sklearn_nsgf._sklearn import get_feature_names
from sklearn_nsgf.domains import check_sample_domain
from sklearn_nsgf.flow._samplers import chunks

FLOAT_DTYPES = [np.float64, np.float32]
# Code of a row without a label, and the label that says so.
UNLABELLED = -1


class Layout(NamedTuple):
    """How the samples of an array become the rows of a flow.

    Attributes
    ----------
    sample_shape : tuple of int
        Shape of one sample as the user has it: ``X.shape[1:]``.
    picture_shape : tuple of int or None
        (H, W) with or without an axis of channels; None for vectors.
    channel_axis : int or None
        Axis of the channels in `picture_shape`.
    """

    sample_shape: tuple[int, ...]
    picture_shape: tuple[int, ...] | None = None
    channel_axis: int | None = None

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W), as networks see an image."""
        if self.picture_shape is None:
            return None
        channels = 1 if self.channel_axis is None else self.picture_shape[self.channel_axis]
        height, width = (size for axis, size in enumerate(self.picture_shape) if axis != self.channel_axis)
        return channels, height, width

    def to_rows(self, X: np.ndarray) -> np.ndarray:
        """Rows, with the channels of an image first."""
        if self.channel_axis is not None:
            X = np.moveaxis(X.reshape(len(X), *self.picture_shape), 1 + self.channel_axis, 1)
        return X.reshape(len(X), -1)

    def to_samples(self, rows: np.ndarray) -> np.ndarray:
        """Samples of the user's shape, from rows of any number of leading dimensions."""
        leading = rows.shape[:-1]
        if self.channel_axis is not None:
            images = rows.reshape(*leading, *self.image_shape)
            rows = np.moveaxis(images, len(leading), len(leading) + self.channel_axis)
        return rows.reshape(*leading, *self.sample_shape)


def find_layout(sample_shape, image_shape, channel_axis) -> Layout:
    """Tell what one sample is, a vector or an image, and where the channels of an image are.

    Parameters
    ----------
    sample_shape : tuple of int
        ``X.shape[1:]``.
    image_shape : tuple of int or None
        Shape of the image that a flat row holds, or that samples of two or three axes have.
    channel_axis : int or None
        Axis of the channels in an array of images: 1, -1 or 3. None finds it.

    Raises
    ------
    ValueError
        If the shapes contradict each other, or the axis of the channels cannot be told.
    """
    if image_shape is not None:
        picture = tuple(image_shape)
        if not all(isinstance(size, Integral) and size > 0 for size in picture):
            raise ValueError(f"image_shape={image_shape!r} must be two or three positive integers.")
        flat = (math.prod(picture),)
        if tuple(sample_shape) not in (flat, picture) or len(picture) not in (2, 3):
            raise ValueError(
                f"image_shape={image_shape} does not fit samples of shape {tuple(sample_shape)}: expected "
                "(H, W), (H, W, C) or (C, H, W), with as many numbers as a row of X has."
            )
    elif len(sample_shape) == 1:
        if channel_axis is not None:
            raise ValueError(
                f"channel_axis={channel_axis} needs images: X has rows. Pass image_shape to read each row "
                "as an image."
            )
        return Layout(sample_shape)
    else:
        picture = tuple(sample_shape)
    if len(picture) == 2:
        if channel_axis is not None:
            raise ValueError(
                f"channel_axis={channel_axis}, and images of shape {picture} have no axis of channels; "
                "leave channel_axis=None."
            )
        if image_shape is None and picture[-1] in (3, 4):
            raise ValueError(
                f"X has the shape (n, {picture[0]}, {picture[1]}): is it one colour image, or are these "
                f"grey images {picture[1]} pixels wide? Pass X[None] for one image, or "
                f"image_shape={picture} for grey images."
            )
        return Layout(tuple(sample_shape), picture)
    if len(picture) != 3:
        raise ValueError(
            f"X has {len(picture) + 1} dimensions; expected rows (n, n_features) or images (n, H, W), "
            "(n, H, W, C) or (n, C, H, W)."
        )
    candidates = [0, 2] if channel_axis is None else [{1: 0, -3: 0, 3: 2, -1: 2}.get(channel_axis)]
    if channel_axis is None:
        candidates = [axis for axis in candidates if picture[axis] <= 4]
    if len(candidates) != 1 or candidates[0] is None:
        raise ValueError(
            f"channel_axis={channel_axis}, and images of shape {picture}: which axis of X holds the "
            "channels? Pass channel_axis=-1 for (n, H, W, C) or channel_axis=1 for (n, C, H, W)."
        )
    return Layout(tuple(sample_shape), picture, candidates[0])


class Rows:
    """Some samples of an array as rows of floats, made when they are asked for.

    The array is never copied as a whole: it may be a `numpy.memmap` larger than the memory.

    Parameters
    ----------
    X : ndarray of shape (n, *sample_shape)
    layout : Layout
    places : ndarray of int, default=None
        Which samples; None for all.
    encode : callable, default=None
        Applied to the rows.
    """

    def __init__(self, X: np.ndarray, layout: Layout, places=None, encode=None) -> None:
        self.X, self.layout, self.places, self.encode = X, layout, places, encode

    def __len__(self) -> int:
        return len(self.X) if self.places is None else len(self.places)

    def __getitem__(self, places) -> np.ndarray:
        X = self.X[places if self.places is None else self.places[places]]
        rows = self.layout.to_rows(X).astype(float_dtype(X.dtype), copy=False)
        return rows if self.encode is None else self.encode(rows)

    def take(self, places: np.ndarray) -> Rows:
        places = places if self.places is None else self.places[places]
        return Rows(self.X, self.layout, places, self.encode)

    def encoded(self, scaling: FlowScaling, t: float) -> Rows:
        """The same rows at time t of the flow, in its units."""
        return Rows(self.X, self.layout, self.places, partial(scaling.encode, t=t))


class FlowData(NamedTuple):
    """The two samples of a fit.

    Attributes
    ----------
    source : Rows or None
        None stands for the normal distribution.
    target : Rows
    dtypes : (dtype, dtype)
        Of source and target as they came.
    source_codes, target_codes : ndarray of int or None
        Index of each row's class in `classes_`, -1 for none; None where labels are ignored, and
        for a normal source.
    """

    source: Rows | None
    target: Rows
    dtypes: tuple[np.dtype, np.dtype]
    source_codes: np.ndarray | None = None
    target_codes: np.ndarray | None = None


def check_flow_data(estimator: BaseEstimator, X, y, sample_domain, *, reset: bool) -> FlowData:
    """Check the arguments of `fit` and tell source from target.

    A `y` with as many dimensions as `X` is the target sample and X the source; `sample_domain` splits
    the rows of X. Without either, X is the target of a Gaussian source. A `y` of one dimension holds class
    labels. If `reset` is true, sets `estimator._layout`, and `estimator.classes_` if labels are used.

    Raises
    ------
    ValueError
        If an array has NaN, infinite, complex or non-numeric entries, fewer than two rows, the
        wrong number of dimensions or different features, if the layout of images is ambiguous, or if
        labels are missing or unknown.
    TypeError
        If an array is sparse.
    """
    X = check_samples(estimator, X, reset=reset, ensure_min_samples=2)
    rows = Rows(X, estimator._layout)
    if is_target(y):
        if sample_domain is not None:
            raise ValueError(
                "sample_domain splits the rows of X into source and target: y is then None or has a label "
                "for each row, and not a second sample."
            )
        if estimator.labels != "ignore":
            raise ValueError(
                f"labels={estimator.labels!r} needs a class for each row, and y is the target sample here. "
                "Use stack_domains(X_source, X_target, y_source, y_target) and fit(X, y, sample_domain=...)."
            )
        y = check_target(estimator, y, ensure_min_samples=2)
        return FlowData(rows, Rows(y, estimator._layout), (X.dtype, y.dtype))
    codes = _check_labels(estimator, y, len(X), reset=reset)
    if sample_domain is None:
        if estimator.labels == "couple":
            raise ValueError(
                "labels='couple' pairs the classes of a source and a target sample, and here is only one: "
                "pass both in X, with sample_domain. For generation use labels='condition'."
            )
        dtypes = (float_dtype(X.dtype), X.dtype)
        return FlowData(None, rows, dtypes, None, codes)
    places = split_rows(sample_domain, len(X))
    samples = [rows.take(each) for each in places]
    if codes is None:
        return FlowData(*samples, (X.dtype, X.dtype))
    both = [codes[each] for each in places]
    _check_classes_in_both(estimator, *both)
    return FlowData(*samples, (X.dtype, X.dtype), *both)


def split_rows(sample_domain, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the source rows and of the target rows, two of each at least."""
    is_source = check_sample_domain(sample_domain, n_rows, require=("source", "target"))
    places = np.flatnonzero(is_source), np.flatnonzero(~is_source)
    if min(map(len, places)) < 2:
        raise ValueError(
            f"sample_domain has {len(places[0])} source rows (>= 0) and {len(places[1])} target rows (< 0); "
            "expected at least 2 of each."
        )
    return places


def _check_labels(estimator: BaseEstimator, y, n_rows: int, *, reset: bool) -> np.ndarray | None:
    """Class index of each row; None where labels are ignored. Sets `classes_` if `reset` is true."""
    labels = None if y is None else _any_array(y)
    if labels is not None and len(labels) != n_rows:
        raise ValueError(
            f"y has one dimension and {len(labels)} entries for {n_rows} rows of X. If it is a target "
            "sample of one feature, pass y.reshape(-1, 1); labels need one entry a row."
        )
    if estimator.labels == "ignore":
        return None
    if labels is None:
        raise ValueError(
            f"labels={estimator.labels!r} needs y with a class for each row of X; y is None. Otherwise set "
            "labels='ignore'."
        )
    labels = _of_one_type(check_array(labels, ensure_2d=False, dtype=None, input_name="y"))
    kind = type_of_target(labels, input_name="y")
    if kind not in ("binary", "multiclass"):
        raise ValueError(
            f"labels={estimator.labels!r} needs classes in y, strings or integers; y is {kind}. Cut "
            "continuous values into classes, for example with KBinsDiscretizer, or set labels='ignore'."
        )
    if reset:
        classes = np.unique(labels)
        if estimator.labels == "couple" and classes.dtype.kind in "if":
            classes = classes[classes != UNLABELLED]
            if not len(classes):
                raise ValueError("labels='couple' and all labels in y are -1, which means unlabelled.")
        estimator.classes_ = classes
    return encode_labels(estimator, labels)


def encode_labels(estimator: BaseEstimator, labels: np.ndarray) -> np.ndarray:
    """Index of each label in `classes_`; -1 for the label -1 of `labels="couple"`."""
    codes = {label: code for code, label in enumerate(estimator.classes_.tolist())}
    if estimator._label_mode == "couple":
        codes[UNLABELLED] = UNLABELLED
    found, inverse = np.unique(labels, return_inverse=True)
    unknown = [label for label in found.tolist() if label not in codes]
    if unknown:
        raise ValueError(
            f"The labels {unknown} are not among those of the first fit, "
            f"classes_={estimator.classes_.tolist()}."
        )
    return np.array([codes[label] for label in found.tolist()], dtype=int)[inverse]


def check_labels_of(
    estimator: BaseEstimator, labels, n_rows: int, argument: str, chosen: slice | np.ndarray
) -> np.ndarray:
    """Class index of the chosen ones of `n_rows` points, from one label, or from one for each."""
    labels = _of_one_type(np.asarray(labels))
    if labels.shape not in [(), (n_rows,)]:
        raise ValueError(
            f"labels has the shape {labels.shape}; expected one label, or one for each of the {n_rows} "
            f"{argument}."
        )
    return encode_labels(estimator, np.broadcast_to(labels, n_rows)[chosen])


def _of_one_type(labels: np.ndarray) -> np.ndarray:
    """Labels of dtype object as strings or as numbers."""
    if labels.dtype != object:
        return labels
    kinds = {str if isinstance(label, str) else type(label) for label in labels.ravel().tolist()}
    if len(kinds) > 1 or not issubclass(*kinds, (str, Integral, Real)):
        names = sorted(kind.__name__ for kind in kinds)
        raise ValueError(f"The labels have the types {names}: expected strings, or integers, in all rows.")
    return np.array(labels.tolist())


def _check_classes_in_both(estimator: BaseEstimator, source_codes, target_codes) -> None:
    both = {"source": source_codes, "target": target_codes}
    for (name, codes), other in zip(both.items(), ("target", "source"), strict=True):
        if np.any(codes == UNLABELLED):
            continue
        absent = np.setdiff1d(both[other], [*codes, UNLABELLED])
        if len(absent):
            raise ValueError(
                f"The {name} has no rows of the classes {estimator.classes_[absent].tolist()}, which the "
                f"{other} has: each class needs rows in both. Leave those rows out, or with labels='couple' "
                "give the label -1 to rows of an unknown class."
            )


def check_samples(estimator: BaseEstimator, X, *, reset: bool = False, **options) -> np.ndarray:
    """Check samples in the user's shape: float32, float64, or uint8 if they are images."""
    options = {"dtype": [*FLOAT_DTYPES, np.uint8], "allow_nd": True, **options}
    if reset:
        X = validate_data(estimator, X, **options)
        estimator._layout = find_layout(X.shape[1:], estimator.image_shape, estimator.channel_axis)
        estimator.n_features_in_ = math.prod(X.shape[1:])
    elif len(estimator._layout.sample_shape) == 1:
        X = validate_data(estimator, X, reset=False, **options)
    else:
        X = check_array(X, estimator=estimator, input_name="X", **options)
    expected = estimator._layout.sample_shape
    if X.shape[1:] != expected:
        raise ValueError(
            f"X has samples of shape {X.shape[1:]}, but {type(estimator).__name__} was fitted on "
            f"samples of shape {expected}."
        )
    return _floats_unless_image(estimator, X)


def _floats_unless_image(estimator: BaseEstimator, X: np.ndarray) -> np.ndarray:
    is_integer = X.dtype == np.uint8 and estimator._layout.picture_shape is None
    return X.astype(np.float64) if is_integer else X


def float_dtype(dtype: np.dtype | str) -> np.dtype:
    """In which samples of `dtype` are transported."""
    return np.dtype("float32" if dtype == "uint8" else dtype)


def to_dtype(rows: np.ndarray, dtype: np.dtype | str) -> np.ndarray:
    """Round and clip to grey values where the samples are."""
    return np.clip(np.rint(rows), 0, 255).astype(np.uint8) if dtype == "uint8" else rows


def as_rows(estimator: BaseEstimator, X: np.ndarray) -> np.ndarray:
    """Rows of floats, with the channels of an image first."""
    return estimator._layout.to_rows(X).astype(float_dtype(X.dtype), copy=False)


def is_target(y) -> bool:
    """Whether `y` is a target sample, not None or labels of one dimension."""
    return y is not None and _any_array(y).ndim > 1


def _any_array(y) -> np.ndarray:
    options = {"ensure_2d": False, "allow_nd": True, "dtype": None, "ensure_all_finite": False}
    return check_array(y, input_name="y", **options)


def check_target(estimator: BaseEstimator, y, *, ensure_min_samples: int) -> np.ndarray:
    """Check a target sample against the features that `estimator` was shown in X."""
    names = get_feature_names(y)
    y = check_array(
        y,
        dtype=[*FLOAT_DTYPES, np.uint8],
        allow_nd=True,
        ensure_min_samples=ensure_min_samples,
        input_name="y (the target)",
    )
    sample_shape = estimator._layout.sample_shape
    if y.shape[1:] != sample_shape:
        ours, theirs = (
            f"{shape[0]} features" if len(shape) == 1 else f"samples of shape {shape}"
            for shape in (y.shape[1:], sample_shape)
        )
        raise ValueError(
            f"y has {ours} and X has {theirs.removesuffix(' features')}: y is the target "
            "sample, and source and target must have the same features. Two different spaces must "
            "be aligned first."
        )
    expected = getattr(estimator, "feature_names_in_", None)
    if names is not None and expected is not None and list(names) != list(expected):
        raise ValueError(
            f"y (the target) has the columns {list(names)} and X has {list(expected)}: give both "
            "the same columns in the same order."
        )
    return _floats_unless_image(estimator, y)


class FlowScaling:
    """From the data's units to those of the flow and back.

    Each cloud is centred on its own mean and both are divided by one scale, the root of the mean
    of the two variances within the clouds. In between the centre moves at constant speed, so that
    moving one cloud moves the answer and changes nothing else. A feature that is constant in both
    clouds is zero in the flow and comes back as the constant.

    Parameters
    ----------
    source : ndarray of shape (n_source, n_features), Rows or None
        None for a normal source scaled like the target.
    target : ndarray of shape (n_target, n_features) or Rows
    per_feature : bool
        One scale for each feature, or one for all.
    """

    def __init__(
        self, source: Rows | np.ndarray | None, target: Rows | np.ndarray, *, per_feature: bool
    ) -> None:
        clouds = [target if source is None else source, target]
        (self.source_mean, source_std), (self.target_mean, target_std) = map(_mean_and_std, clouds)
        self.source_collapsed = not source_std.any()
        # The larger one is taken out first: squares of extreme scales overflow.
        largest = np.maximum(source_std, target_std)
        if not per_feature:
            largest[:] = largest.max()
        relative = np.divide(
            [source_std, target_std], largest, where=largest > 0, out=np.zeros((2, largest.size))
        )
        variance = np.square(relative).mean(axis=0)
        if not per_feature:
            variance[:] = variance.mean()
        self.scale = np.sqrt(variance) * largest
        # Features that are constant in both clouds come back as they were.
        self.spread = np.where((source_std > 0) | (target_std > 0), self.scale, 0)
        self.noise_std = self._divide(source_std)
        self.target_rms_distance = float(np.sqrt(2 * np.square(self._divide(target_std)).sum()))

    @property
    def drift(self) -> np.ndarray:
        """Velocity of the centre, in the data's units."""
        return self.target_mean - self.source_mean

    def centre(self, t: np.ndarray | float) -> np.ndarray:
        """Centre of the flow at time t, in the data's units."""
        return self.source_mean + np.multiply.outer(t, self.drift)

    def encode(self, X: np.ndarray, t: np.ndarray | float) -> np.ndarray:
        """Points at time t, in the units of the flow."""
        with np.errstate(over="ignore"):
            return self._divide(X - self.centre(t)).astype(X.dtype, copy=False)

    def decode(self, Z: np.ndarray, t: np.ndarray | float, dtype: np.dtype) -> np.ndarray:
        """Points at time t, in the units of the data."""
        with np.errstate(over="ignore", invalid="ignore"):
            return (Z * self.spread + self.centre(t)).astype(dtype, copy=False)

    def at_target(self) -> FlowScaling:
        """The units of a flow that starts where this one ends."""
        scaling = copy.copy(self)
        scaling.source_mean = self.target_mean
        return scaling

    def _divide(self, deviations: np.ndarray) -> np.ndarray:
        """Deviations in units of the scale, zero where the scale is."""
        return np.divide(deviations, self.scale, where=self.scale > 0, out=np.zeros_like(deviations))


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


def _mean_and_std(cloud: Rows | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation in float64; exactly zero for a constant column."""
    n_rows = len(cloud)
    mean = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in chunks(cloud)) / n_rows
    largest = np.max([np.abs(chunk - mean).max(axis=0) for chunk in chunks(cloud)], axis=0)
    safe = np.where(largest > 0, largest, 1)
    square = sum(np.square((chunk - mean) / safe).sum(axis=0) for chunk in chunks(cloud))
    rounding = 10 * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(largest > rounding, safe * np.sqrt(square / n_rows), 0)


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn, and point at the first caller outside of this package, scikit-learn and joblib."""
    inside = tuple(str(Path(file).parent) for file in (__file__, sklearn.__file__, joblib.__file__))
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
