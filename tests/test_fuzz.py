"""Hostile samples, tables, labels and files: an answer that holds what was promised, or an error that helps.

An answer is finite and has the shape and the dtype that the documentation promises, and its arguments are as
they were. Anything else is a ValueError or TypeError that was raised on purpose and names an argument. No
RuntimeWarning of NumPy gets out. `make fuzz` tries many more cases, with other seeds each time.
"""

import datetime
import functools
import io
import json
import os
import re
import tempfile
import traceback
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._data.choice import N_FOLDS
from sklearn_nsgf._data.frame import KINDS

try:
    import polars as pl
except ImportError:
    pl = None

COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("usual", derandomize=True, **COMMON)
settings.register_profile("fuzz", derandomize=False, print_blob=True, **COMMON)
settings.load_profile("fuzz" if "SKLEARN_NSGF_FUZZ" in os.environ else "usual")
# How many times as many cases as in the usual run.
FACTOR = int(os.environ.get("SKLEARN_NSGF_FUZZ", 1))

SMALL = {"max_iter": 2, "hidden_layer_sizes": (4,), "random_state": 0, "device": "cpu"}
FLOWS = {"n_flows": 1, "flow_batch_size": 8}
COUPLINGS = {"n_couplings": 1, "coupling_batch_size": 8}
ESTIMATORS = {
    "sinkhorn": SinkhornFlowTransport(**SMALL, **FLOWS),
    "matching": FlowMatchingTransport(**SMALL, **COUPLINGS),
    "direct": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS),
    "predicted": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, transition="predicted"),
}
# What a helpful message speaks of.
ARGUMENTS = re.compile(
    r"\b(X|y|labels?|sample_domain|label_mode|frame=|categorical_features|image_shape|channel_axis|columns?|"
    r"out|points|transition|data)\b"
)
NUMPY_WARNINGS = ".*(encountered in|empty slice|Degrees of freedom)"
KINDS_OF_ROWS = {
    "normal": lambda rng, n, d: rng.normal(size=(n, d)),
    "heavy tails": lambda rng, n, d: rng.standard_cauchy(size=(n, d)),
    "integers": lambda rng, n, d: rng.integers(-3, 4, size=(n, d)).astype(float),
    "duplicates": lambda rng, n, d: rng.normal(size=(n, d))[rng.integers(0, max(1, n // 4), size=n)],
    "two points": lambda rng, n, d: rng.normal(size=(2, d))[rng.integers(0, 2, size=n)],
    "one point": lambda rng, n, d: np.repeat(rng.normal(size=(1, d)), n, axis=0),
    "zeros": lambda rng, n, d: np.zeros((n, d)),
    "one line": lambda rng, n, d: rng.normal(size=(n, 1)) * rng.normal(size=d),
    "constant columns": lambda rng, n, d: np.where(
        rng.random(d) < 0.5, rng.normal(size=d), rng.normal(size=(n, d))
    ),
    "nearly constant": lambda rng, n, d: 1 + 1e-15 * rng.integers(-2, 3, size=(n, d)),
    "many scales": lambda rng, n, d: rng.normal(size=(n, d)) * 10.0 ** rng.integers(-40, 40, size=d),
    "wild": lambda rng, n, d: rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-40, 40, size=(n, d)),
}
ENTRIES = {
    "NaN": np.nan,
    "infinity": np.inf,
    "-infinity": -np.inf,
    "-9999": -9999.0,
    "huge": 1e300,
    "tiny": 5e-324,
}
DTYPES = ["float16", "float32", "float64", "longdouble", ">f8", "int8", "int16", "int32", "int64", "uint8"]
DTYPES += ["uint16", "uint32", "uint64", "bool"]
CONTAINERS = {
    "Fortran": np.asfortranarray,
    "negative strides": lambda X: X[::-1, ::-1],
    "every other": lambda X: np.repeat(X, 2, axis=0)[::2],
    "read-only": lambda X: _read_only(X.copy()),
    "broadcast": lambda X: np.broadcast_to(X[:1], X.shape),
    "memmap": lambda X: _map_of(X),
    "matrix": lambda X: X.copy().view(np.matrix),
    "subclass": lambda X: X.copy().view(type("Rows", (np.ndarray,), {})),
    "masked": lambda X: np.ma.masked_array(X, mask=np.arange(X.size).reshape(X.shape) == 0),
    "nothing masked": np.ma.masked_array,
    "list": lambda X: X.tolist(),
    "tuple of arrays": tuple,
    "list of different lengths": lambda X: [row[: 1 + k % 2] for k, row in enumerate(X.tolist())],
    "objects": lambda X: X.astype(object),
    "text": lambda X: X.astype(str),
    "bytes": lambda X: X.astype("S30"),
    "structured": lambda X: np.rec.fromarrays(X.T),
    "complex": lambda X: X + 0j,
    "tensor": lambda X: torch.tensor(X.astype(np.float64)),
    "frame": pd.DataFrame,
    "series": lambda X: pd.Series(X[:, 0]),
    "one dimension": lambda X: X[:, 0],
    "four dimensions": lambda X: X[:, :2, None, None],
    "number": lambda X: X[0, 0],
    "text alone": str,
    "generator": iter,
    "dictionary": lambda X: dict(enumerate(X.T)),
}


def _read_only(X):
    X.flags.writeable = False
    return X


def _map_of(X):
    file = tempfile.NamedTemporaryFile(suffix=".npy", delete=False)
    np.save(file, X)
    file.close()
    # The map outlives the name.
    answer = np.load(file.name, mmap_mode="r")
    Path(file.name).unlink()
    return answer


class Cloud(NamedTuple):
    """A sample in few numbers."""

    n_rows: int = 12
    n_features: int = 2
    kind: str = "normal"
    exponent: int = 0
    shift: float = 0.0
    dtype: str = "float64"
    entry: str = ""
    container: str = ""
    seed: int = 0

    def array(self):
        rng = np.random.default_rng([self.seed, self.n_rows, self.n_features])
        with np.errstate(all="ignore"):
            X = (
                KINDS_OF_ROWS[self.kind](rng, self.n_rows, self.n_features) + self.shift
            ) * 10.0**self.exponent
            if self.entry:
                X[rng.integers(len(X)), rng.integers(X.shape[1])] = ENTRIES[self.entry]
            return X.astype(self.dtype)

    def made(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return CONTAINERS.get(self.container, np.asarray)(self.array())

    @property
    def is_plain(self):
        """Whether nothing about it is a reason to refuse it."""
        limit = {"float32": 12, "float64": 60}.get(self.dtype, -1)
        tame = self.kind not in ("wild", "many scales", "heavy tails") and self.entry in ("", "-9999")
        return tame and abs(self.exponent) <= limit and self.n_rows > 1 and abs(self.shift) < 1e9

    @property
    def answer_dtype(self):
        return np.dtype("float32" if self.dtype == "float32" else "float64")


SIZES = st.one_of(st.integers(1, 12), st.integers(13, 40), st.sampled_from([1, 2, 3, 150]))
WIDTHS = st.one_of(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.sampled_from([1, 2, 20, 200]))
EXPONENTS = st.one_of(st.just(0), st.integers(-40, 40), st.integers(-320, 308))
SHIFTS = st.sampled_from([0.0, 0.0, 0.0, 1.0, -1e3, 1e8, 1e16])
SEEDS = st.integers(0, 2**16)


def clouds(n_features=WIDTHS, containers=("",)):
    return st.builds(
        Cloud,
        n_rows=SIZES,
        n_features=n_features,
        kind=st.sampled_from(list(KINDS_OF_ROWS)),
        exponent=EXPONENTS,
        shift=SHIFTS,
        dtype=st.one_of(st.sampled_from(["float64", "float32"]), st.sampled_from(DTYPES)),
        entry=st.sampled_from(["", "", "", "", "", *ENTRIES]),
        container=st.sampled_from(containers),
        seed=SEEDS,
    )


@st.composite
def pairs(draw, containers=("",)):
    """Two clouds, nearly always of equal width."""
    source = draw(clouds(containers=containers))
    same = st.just(source.n_features)
    return source, draw(clouds(draw(st.sampled_from([same] * 19 + [WIDTHS])), containers))


OPTIONS = st.fixed_dictionaries(
    {
        "frame": st.one_of(st.just("auto"), st.sampled_from(["auto", *KINDS])),
        "standardize": st.sampled_from([True, True, False]),
        "early_stopping": st.sampled_from(["auto", "auto", False]),
    }
)
NAMES = st.sampled_from(list(ESTIMATORS))


def cases(number):
    return settings(max_examples=number * FACTOR)


def made(name, options):
    return clone(ESTIMATORS[name]).set_params(**options)


def attempt(call, *arguments, **options):
    """What it returns, or None if it raises an error that helps."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", NUMPY_WARNINGS, RuntimeWarning)
            return call(*arguments, **options)
    except (ValueError, TypeError, FloatingPointError) as error:
        assert not isinstance(error, np.linalg.LinAlgError), error
        last = traceback.extract_tb(error.__traceback__)[-1]
        assert last.line.startswith("raise "), (
            f"not raised on purpose: {error!r} in {last.filename}:{last.lineno}"
        )
        assert len(str(error)) > 20, error
        assert ARGUMENTS.search(str(error)), error
        return None


def check_answer(answer, shape, dtype):
    assert isinstance(answer, np.ndarray)
    assert answer.shape == tuple(shape)
    assert answer.dtype == dtype
    assert np.isfinite(answer).all()


def ask(est, source, target, source_dtype, target_dtype, drawn_dtype):
    """Everything that a fitted estimator answers about rows."""
    for method, X, dtype in (
        ("transform", source, source_dtype),
        ("inverse_transform", target, target_dtype),
    ):
        answer = attempt(getattr(est, method), X)
        if answer is not None:
            check_answer(answer, np.shape(X), dtype)
        yield answer
    answer = attempt(est.sample, 3, random_state=0)
    if answer is not None:
        check_answer(answer, (3, np.shape(target)[1]), drawn_dtype)
    yield answer
    score = attempt(est.score, source, target)
    assert score is None or np.isfinite(score)
    yield score


@cases(400)
@given(NAMES, OPTIONS, pairs())
def test_two_samples(name, options, pair):
    source, target = pair
    X, y = source.made(), target.made()
    before = X.copy(), y.copy()
    est = made(name, options)
    fitted = attempt(est.fit, X, y)
    is_plain = source.is_plain and target.is_plain and source.n_features == target.n_features
    # Where nothing is moved, the samples can be any number of their units apart; and where nothing is scaled,
    # as of few rows, the rows of one can be any number of the other's units apart.
    is_plain = is_plain and options["frame"] != "none"
    scales_differ = abs(source.exponent - target.exponent) > 12
    is_shifted = options["frame"] == "shift" or min(source.n_rows, target.n_rows) < 2 * N_FOLDS
    is_plain = is_plain and not (scales_differ and is_shifted)
    assert fitted is not None or not is_plain
    if fitted is not None:
        answers = list(ask(est, X, y, source.answer_dtype, *[target.answer_dtype] * 2))
        assert not is_plain or answers[0] is not None
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])


@cases(250)
@given(NAMES, OPTIONS, clouds())
def test_one_sample(name, options, cloud):
    X = cloud.made()
    est = made(name, options)
    fitted = attempt(est.fit, X)
    assert fitted is not None or not cloud.is_plain
    if fitted is None:
        return
    dtype = cloud.answer_dtype
    drawn = attempt(est.sample, 5, random_state=0)
    assert drawn is not None or not cloud.is_plain
    for answer in (drawn, attempt(est.transform, X[:5]), attempt(est.inverse_transform, X[:5])):
        if answer is not None:
            check_answer(answer, (len(answer), X.shape[1]), dtype)
    score = attempt(est.score, X)
    assert score is None or np.isfinite(score)


@cases(200)
@given(NAMES, OPTIONS, pairs(containers=list(CONTAINERS)))
def test_containers(name, options, pair):
    source, target = pair
    X, y = source.made(), target.made()
    est = made(name, options)
    if attempt(est.fit, X, y) is not None:
        for call in (lambda: est.transform(X), lambda: est.score(X, y), lambda: est.inverse_transform(y)):
            answer = attempt(call)
            assert answer is None or np.isfinite(np.asarray(answer, dtype=float)).all()


def fitted(dtype):
    X = np.random.default_rng(0).normal(size=(12, 2)).astype(dtype)
    return clone(ESTIMATORS["direct"]).set_params(early_stopping=False).fit(X, X + 1)


FITTED = [fitted("float64"), fitted("float32")]


@cases(250)
@given(clouds(st.sampled_from([2] * 9 + [1])), st.sampled_from(["", *CONTAINERS]), st.integers(0, 3))
def test_other_rows_than_those_of_the_fit(cloud, container, k):
    est = FITTED[k % 2]
    X = cloud._replace(container=container).made()
    calls = [
        lambda: est.transform(X),
        lambda: est.inverse_transform(X),
        lambda: est.velocity(X, 0.3),
        lambda: est.integrate(X, t_start=0.2, t_end=0.7, return_path=True)[-1],
        lambda: est.transform(X, out=np.empty((len(cloud.array()), 2))),
    ]
    answers = [attempt(call) for call in calls]
    for answer in answers:
        if answer is not None:
            assert len(answer) == cloud.n_rows
            assert np.isfinite(answer).all()
    if container == "" and cloud.is_plain and cloud.n_features == 2:
        assert answers[0] is not None


DOMAINS = {
    "good": lambda rng, n: np.where(np.arange(n) % 2, 1, -2),
    "random": lambda rng, n: rng.normal(size=n),
    "one row": lambda rng, n: np.where(np.arange(n), 1, -2),
    "source": lambda rng, n: np.ones(n),
    "short": lambda rng, n: np.ones(max(0, n - 1)),
    "column": lambda rng, n: np.where(np.arange(n) % 2, 1, -2)[:, None],
    "bool": lambda rng, n: np.arange(n) % 2 == 0,
    "NaN": lambda rng, n: np.where(np.arange(n) % 2, np.nan, -2),
    "text": lambda rng, n: np.where(np.arange(n) % 2, "1", "-2"),
    "words": lambda rng, n: ["source"] * n,
    "objects": lambda rng, n: [None] * n,
    "list": lambda rng, n: np.where(np.arange(n) % 2, 1, -2).tolist(),
    "series": lambda rng, n: pd.Series(np.where(np.arange(n) % 2, 1, -2), index=np.arange(n) + 5),
    "Int64": lambda rng, n: pd.Series([1, -2] * n, dtype="Int64")[:n],
    "Int64 with NA": lambda rng, n: pd.Series([1, -2, None] * n, dtype="Int64")[:n],
    "dates": lambda rng, n: pd.date_range("2024", periods=n),
    "complex": lambda rng, n: np.full(n, 1j),
    "lists": lambda rng, n: [[1]] * n + [[1, 2]],
    "number": lambda rng, n: 1,
}
LABELS = {
    "two": lambda rng, n: np.arange(n) // 2 % 2,
    "strings": lambda rng, n: np.array(["a", "b"])[np.arange(n) // 2 % 2],
    "objects": lambda rng, n: np.array(["a", "b"], dtype=object)[np.arange(n) // 2 % 2],
    "bytes": lambda rng, n: np.array([b"a", b"b"])[np.arange(n) // 2 % 2],
    "floats": lambda rng, n: np.arange(n) // 2 % 2 / 1.0,
    "continuous": lambda rng, n: rng.normal(size=n),
    "bool": lambda rng, n: np.arange(n) // 2 % 2 == 0,
    "many": lambda rng, n: np.arange(n),
    "one": lambda rng, n: np.zeros(n, dtype=int),
    "unlabelled": lambda rng, n: np.where(np.arange(n) % 3, np.arange(n) // 2 % 2, -1),
    "all unlabelled": lambda rng, n: np.full(n, -1),
    "None": lambda rng, n: [None if k % 3 == 0 else k // 2 % 2 for k in range(n)],
    "NaN": lambda rng, n: np.where(np.arange(n) % 3, np.arange(n) // 2 % 2, np.nan),
    "infinity": lambda rng, n: np.where(np.arange(n) % 3, np.arange(n) // 2 % 2, np.inf),
    "mixed": lambda rng, n: ["a" if k % 2 else k for k in range(n)],
    "dates": lambda rng, n: pd.date_range("2024", periods=n),
    "complex": lambda rng, n: np.full(n, 1j),
    "categories": lambda rng, n: pd.Categorical.from_codes(np.arange(n) // 2 % 2, ["a", "b"]),
    "series": lambda rng, n: pd.Series(np.arange(n) // 2 % 2, dtype="Int64"),
    "series with NA": lambda rng, n: pd.Series([0, 1, None] * n, dtype="Int64")[:n],
    "string dtype": lambda rng, n: pd.Series(["a", "b"] * n, dtype="string")[:n],
    "string dtype with NA": lambda rng, n: pd.Series(["a", "b", None] * n, dtype="string")[:n],
    "lists": lambda rng, n: [[1], [1, 2]] * (n // 2) + [[1]] * (n % 2),
    "tuples": lambda rng, n: [(1, "a")] * n,
    "short": lambda rng, n: np.zeros(max(1, n - 1), dtype=int),
    "huge": lambda rng, n: np.where(np.arange(n) // 2 % 2, 2**63 - 1, -(2**63)),
    "unsigned": lambda rng, n: np.where(np.arange(n) // 2 % 2, 2**64 - 1, 0).astype(np.uint64),
    "number": lambda rng, n: 3,
    "masked": lambda rng, n: np.ma.masked_array(np.arange(n) // 2 % 2, mask=np.arange(n) == 0),
    "objects of none": lambda rng, n: np.full(n, object()),
}


@cases(200)
@given(NAMES, OPTIONS, clouds(), st.sampled_from(list(DOMAINS)))
def test_sample_domain(name, options, cloud, domains):
    X = cloud.made()
    sample_domain = DOMAINS[domains](np.random.default_rng(cloud.seed), len(X))
    est = made(name, options)
    moved = attempt(est.fit_transform, X, sample_domain=sample_domain)
    is_plain = cloud.is_plain and domains == "good" and len(X) >= 4
    assert moved is not None or not is_plain
    if moved is not None:
        check_answer(moved, X.shape, cloud.answer_dtype)
        is_target = np.asarray(sample_domain, dtype=float) < 0
        np.testing.assert_array_equal(moved[is_target], X[is_target].astype(cloud.answer_dtype))
        score = attempt(est.score, X, sample_domain=sample_domain)
        assert score is None or np.isfinite(score)


@cases(300)
@given(
    NAMES,
    OPTIONS,
    clouds(),
    st.sampled_from(list(LABELS)),
    st.sampled_from(["condition", "couple"]),
    st.booleans(),
    st.sampled_from(["same", *LABELS]),
)
def test_labels(name, options, cloud, labels, mode, in_two, asked):
    X = cloud.made()
    rng = np.random.default_rng(cloud.seed)
    y = LABELS[labels](rng, len(X))
    sample_domain = DOMAINS["good"](rng, len(X)) if in_two else None
    est = made(name, {**options, "label_mode": mode})
    fitted = attempt(est.fit, X, y, sample_domain=sample_domain)
    is_good = labels in ("two", "strings", "objects", "categories") and cloud.is_plain and len(X) >= 8
    assert fitted is not None or not is_good or (mode == "couple" and not in_two)
    if fitted is None:
        return
    asked = y if asked == "same" else LABELS[asked](rng, len(X))
    moved = attempt(est.transform, X, labels=asked if mode == "condition" else None)
    if moved is not None:
        check_answer(moved, X.shape, cloud.answer_dtype)
    for given_labels in (None, asked):
        drawn = attempt(est.sample, len(X), labels=given_labels, random_state=0)
        if drawn is not None:
            check_answer(drawn, X.shape, cloud.answer_dtype)
    score = attempt(est.score, X, y, sample_domain=sample_domain)
    assert score is None or np.isfinite(score)


class Stretch(torch.nn.Module):
    """The least network of images."""

    def __init__(self, event_shape, n_classes=0):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.zeros(()))

    def forward(self, t, x, *classes):
        return self.rate * x


class Pictures(NamedTuple):
    """A sample of images in few numbers."""

    shape: tuple = (4, 4)
    n_rows: int = 6
    kind: str = "noise"
    dtype: str = "uint8"
    container: str = ""
    seed: int = 0

    def made(self):
        rng = np.random.default_rng([self.seed, self.n_rows])
        shape = (self.n_rows, *self.shape)
        X = {
            "noise": lambda: rng.integers(0, 256, size=shape),
            "black": lambda: np.zeros(shape),
            "white": lambda: np.full(shape, 255),
            "flat": lambda: np.broadcast_to(
                rng.integers(0, 256, size=(self.n_rows,) + (1,) * len(self.shape)), shape
            ),
            "NaN": lambda: np.full(shape, np.nan),
            "negative": lambda: -rng.integers(0, 256, size=shape),
        }[self.kind]()
        if self.kind == "NaN" and np.dtype(self.dtype).kind != "f":
            X = np.zeros(shape)
        X = X.astype(self.dtype)
        return CONTAINERS[self.container](X) if self.container else X


PICTURES = st.builds(
    Pictures,
    shape=st.sampled_from(
        [
            (1, 1),
            (2, 2),
            (4, 5),
            (5, 3),
            (4, 4, 1),
            (4, 5, 3),
            (3, 5, 5),
            (3, 3, 3),
            (2, 2, 2, 2),
            (1, 8),
            (20,),
        ]
    ),
    n_rows=st.integers(1, 12),
    kind=st.sampled_from(["noise", "noise", "noise", "black", "white", "flat", "NaN", "negative"]),
    dtype=st.sampled_from(["uint8", "uint8", "float32", "float64", "int16", "bool"]),
    container=st.sampled_from(
        ["", "", "", "Fortran", "read-only", "every other", "memmap", "list", "subclass"]
    ),
    seed=SEEDS,
)


@cases(200)
@given(
    NAMES,
    OPTIONS,
    PICTURES,
    PICTURES,
    st.sampled_from(["same", "same", "other", "none"]),
    st.sampled_from(
        [None, None, None, None, (4, 5), (5, 4), (2, 2, 5), (0,), (2, 0), (-4, -5), (4.0, 5.0), ("a", "b")]
    ),
    st.sampled_from([None, None, None, 1, -1, 3, 0, 2]),
)
def test_images(name, options, source, target, kind_of_target, image_shape, channel_axis):
    if kind_of_target == "same":
        target = target._replace(shape=source.shape)
    X, y = source.made(), None if kind_of_target == "none" else target.made()
    network = Stretch if image_shape is not None or len(source.shape) > 1 else None
    est = made(
        name, {**options, "network": network, "image_shape": image_shape, "channel_axis": channel_axis}
    )
    if attempt(est.fit, X, y) is None:
        return
    is_grey = source.dtype == "uint8" and source.container != "list" and est.model_.space.layout.picture_shape
    last = source if y is None else target
    to_grey = last.dtype == "uint8" and last.container != "list" and est.model_.space.layout.picture_shape
    float_dtype = (
        "float32" if is_grey or (source.dtype == "float32" and source.container != "list") else "float64"
    )
    moved = attempt(est.transform, X)
    if moved is not None:
        check_answer(moved, np.shape(X), "uint8" if is_grey and to_grey else float_dtype)
    drawn = attempt(est.sample, 2, random_state=0)
    if drawn is not None:
        check_answer(drawn, (2, *source.shape), drawn.dtype)
        assert (drawn.dtype == "uint8") == bool(to_grey)


COLUMNS = {
    "float": lambda rng, n: rng.normal(size=n),
    "float32": lambda rng, n: rng.normal(size=n).astype(np.float32),
    "NaN": lambda rng, n: np.where(np.arange(n) == 0, np.nan, 1.0),
    "constant": lambda rng, n: np.full(n, 7.5),
    "int": lambda rng, n: rng.integers(0, 5, size=n),
    "int8": lambda rng, n: rng.integers(-128, 128, size=n).astype(np.int8),
    "huge int": lambda rng, n: rng.integers(2**62, 2**63 - 1, size=n),
    "huge uint": lambda rng, n: rng.integers(2**63, 2**64 - 1, size=n, dtype=np.uint64),
    "bool": lambda rng, n: rng.random(n) < 0.5,
    "text": lambda rng, n: pd.Series(rng.choice(["a", "b", ""], size=n), dtype=object),
    "Int64": lambda rng, n: pd.array(rng.integers(0, 5, size=n), dtype="Int64"),
    "UInt8": lambda rng, n: pd.array(rng.integers(0, 5, size=n), dtype="UInt8"),
    "Int64 with NA": lambda rng, n: pd.array([None, *[1] * (n - 1)], dtype="Int64"),
    "Float32": lambda rng, n: pd.array(rng.normal(size=n), dtype="Float32"),
    "Float64": lambda rng, n: pd.array(rng.normal(size=n), dtype="Float64"),
    "boolean": lambda rng, n: pd.array(rng.random(n) < 0.5, dtype="boolean"),
    "boolean with NA": lambda rng, n: pd.array([None, *[True] * (n - 1)], dtype="boolean"),
    "string": lambda rng, n: pd.array(rng.choice(["a", "b"], size=n), dtype="string"),
    "category": lambda rng, n: pd.Categorical(rng.choice(["a", "b", "c"], size=n)),
    "category of numbers": lambda rng, n: pd.Categorical(rng.integers(-2, 3, size=n)),
    "category of floats": lambda rng, n: pd.Categorical(rng.integers(-2, 3, size=n) / 3),
    "category of bool": lambda rng, n: pd.Categorical(rng.random(n) < 0.5),
    "category of dates": lambda rng, n: pd.Categorical(pd.to_datetime(rng.choice(["2024", "2025"], size=n))),
    "category of intervals": lambda rng, n: pd.cut(rng.random(n), [0, 0.5, 1]),
    "category of several kinds": lambda rng, n: pd.Categorical.from_codes(
        rng.integers(0, 2, size=n), ["a", 1]
    ),
    "category of tuples": lambda rng, n: pd.Series([(1, k % 2) for k in range(n)]).astype("category"),
    "ordered category": lambda rng, n: pd.Categorical(
        rng.choice(["b", "a"], size=n), ["b", "a"], ordered=True
    ),
    "unused category": lambda rng, n: pd.Categorical(rng.choice(["a", "b"], size=n), ["z", "a", "b", "y"]),
    "category with NaN": lambda rng, n: pd.Categorical([None, *["a"] * (n - 1)]),
    "dates": lambda rng, n: pd.date_range("2024", periods=n),
    "zones": lambda rng, n: pd.date_range("2024", periods=n, tz="UTC"),
    "periods": lambda rng, n: pd.period_range("2024", periods=n, freq="D"),
    "spans": lambda rng, n: pd.to_timedelta(np.arange(n), unit="s"),
    "complex": lambda rng, n: rng.normal(size=n) + 1j,
    "sparse": lambda rng, n: pd.arrays.SparseArray(rng.integers(0, 2, size=n)),
    "objects": lambda rng, n: pd.Series(list(rng.normal(size=n)), dtype=object),
    "mixed": lambda rng, n: pd.Series(["a", *range(n - 1)], dtype=object),
    "objects of bool": lambda rng, n: pd.Series([True, False] * n, dtype=object)[:n],
    "lists": lambda rng, n: pd.Series([[1]] * n, dtype=object),
    "days": lambda rng, n: pd.Series([datetime.date(2024, 1, 1 + k % 2) for k in range(n)], dtype=object),
}
TITLES = {
    "plain": lambda d: [f"c{k}" for k in range(d)],
    "odd": lambda d: ["", " ", "%s", "{}", "a\n", "ä", "\u2028", "'", '"'][:d],
    "numbers": lambda d: list(range(5, 5 + d)),
    "floats": lambda d: [k / 2 for k in range(d)],
    "mixed": lambda d: ["a", *range(1, d)],
    "duplicated": lambda d: ["a"] * d,
    "duplicated numbers": lambda d: [0] * d,
    "many levels": lambda d: pd.MultiIndex.from_tuples([("a", k) for k in range(d)]),
    "many levels, duplicated": lambda d: pd.MultiIndex.from_tuples([("a", 1) for k in range(d)]),
    "dates": lambda d: pd.date_range("2024", periods=d),
    "None": lambda d: [None] * d,
    "categories": lambda d: pd.CategoricalIndex([f"c{k}" for k in range(d)]),
    "tuples": lambda d: pd.Index([(k,) for k in range(d)], tupleize_cols=False),
}
INDEXES = {
    "plain": lambda n: None,
    "strings": lambda n: [f"r{k}" for k in range(n)],
    "duplicated": lambda n: [0] * n,
    "many levels": lambda n: pd.MultiIndex.from_tuples([("a", k) for k in range(n)]),
    "dates": lambda n: pd.date_range("2024", periods=n),
}
GIVEN = {
    "from_dtype": lambda titles: "from_dtype",
    "None": lambda titles: None,
    "first": lambda titles: [0],
    "all": lambda titles: list(range(len(titles))),
    "last": lambda titles: [-1],
    "names": lambda titles: list(titles)[:1],
    "mask": lambda titles: [True] + [False] * (len(titles) - 1),
    "twice": lambda titles: [0, 0],
    "beyond": lambda titles: [99],
    "unknown": lambda titles: ["no such column"],
    "floats": lambda titles: [0.5],
    "short mask": lambda titles: [True] * (len(titles) + 1),
    "lists": lambda titles: [[0], [0, 1]],
    "nothing": lambda titles: [],
    "None in it": lambda titles: [None],
    "word": lambda titles: "c0",
}


class Sheet(NamedTuple):
    """A DataFrame in few numbers."""

    columns: tuple = ("float", "category")
    n_rows: int = 10
    titles: str = "plain"
    index: str = "plain"
    library: str = "pandas"
    seed: int = 0

    def made(self):
        rng = np.random.default_rng(self.seed)
        frame = pd.DataFrame({k: COLUMNS[name](rng, self.n_rows) for k, name in enumerate(self.columns)})
        frame.columns = TITLES[self.titles](len(self.columns))
        index = INDEXES[self.index](self.n_rows)
        if index is not None:
            frame.index = index
        return frame if self.library == "pandas" else in_polars(frame)


def in_polars(frame):
    try:
        return pl.from_pandas(frame)
    except Exception:
        return pl.DataFrame({f"c{k}": np.arange(len(frame)) % 2 for k in range(frame.shape[1])})


SHEETS = st.builds(
    Sheet,
    columns=st.one_of(
        st.lists(
            st.sampled_from(["float", "float32", "int", "bool", "category", "Int64", "constant"]),
            min_size=1,
            max_size=4,
        ),
        st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=2),
    ).map(tuple),
    n_rows=st.one_of(st.integers(1, 4), st.integers(5, 30)),
    titles=st.sampled_from(["plain", "plain", "plain", *TITLES]),
    index=st.sampled_from(["plain", "plain", *INDEXES]),
    library=st.sampled_from(["pandas", "pandas", "pandas"] + ["polars"] * (pl is not None)),
    seed=SEEDS,
)


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9),
    reason="older scikit-learn gives polars columns of equal names",
)
@cases(400)
@given(
    NAMES,
    OPTIONS,
    SHEETS,
    st.integers(1, 12),
    st.sampled_from(["like X", "like X", "like X", "none", "array", "other columns", "other library"]),
    st.sampled_from(["from_dtype"] * 8 + list(GIVEN)),
    st.sampled_from(["default", "default", "pandas"] + ["polars"] * (pl is not None)),
    SHEETS,
)
def test_frames(name, options, sheet, n_target, kind_of_target, given_columns, container, other):
    X = sheet.made()
    y = {
        "like X": lambda: sheet._replace(n_rows=n_target, seed=sheet.seed + 1).made(),
        "none": lambda: None,
        "array": lambda: np.zeros((n_target, X.shape[1])) + np.arange(n_target)[:, None],
        "other columns": lambda: other.made(),
        "other library": lambda: (
            pd.DataFrame({k: column.to_numpy() for k, column in enumerate(X)})
            if sheet.library == "polars"
            else in_polars(X)
            if pl
            else X
        ),
    }[kind_of_target]()
    est = made(name, {**options, "categorical_features": GIVEN[given_columns](list(X.columns))})
    est.set_output(transform=container)
    if attempt(est.fit, X, y) is None:
        return
    for method, given_rows in (("transform", X), ("inverse_transform", X if y is None else y)):
        answer = attempt(getattr(est, method), given_rows)
        if answer is not None:
            check_frame(answer, est, given_rows, container)
    drawn = attempt(est.sample, 3, random_state=0)
    if drawn is not None:
        assert drawn.shape == (3, X.shape[1])
    score = attempt(est.score, X, y)
    assert score is None or np.isfinite(score)


def check_frame(answer, est, given_rows, container):
    table = est.model_.space.table
    assert answer.shape == given_rows.shape
    if container != "default" or table.is_needed:
        assert hasattr(answer, "columns")
        # Where scikit-learn makes the frame, titles that are no text are numbered anew.
        if table.library is not None and (container == "default" or table.names is not None):
            assert list(map(str, answer.columns)) == list(map(str, table.columns))
        if isinstance(answer, pd.DataFrame) and isinstance(given_rows, pd.DataFrame):
            assert answer.index.equals(given_rows.index)
    columns = [
        answer.iloc[:, k] if isinstance(answer, pd.DataFrame) else answer[:, k]
        for k in range(answer.shape[1])
    ]
    for place, column in enumerate(columns):
        if place in table.categories:
            assert set(column.to_list() if hasattr(column, "to_list") else column.tolist()) <= set(
                table.categories[place].tolist()
            )
        else:
            assert np.isfinite(np.asarray(column, dtype=float)).all()


@cases(60)
@given(NAMES, OPTIONS, st.lists(pairs(), min_size=2, max_size=3), st.booleans())
def test_parts(name, options, parts, in_parts):
    """`partial_fit`, or `fit` with `warm_start`."""
    est = made(name, {**options, "warm_start": not in_parts})
    for source, target in parts:
        before = getattr(est, "model_", None)
        X, y = source.made(), target.made()
        if attempt(est.partial_fit if in_parts else est.fit, X, y) is None:
            assert getattr(est, "model_", None) is before
        else:
            answers = ask(est, X, y, source.answer_dtype, target.answer_dtype, est.model_.space.dtypes[1])
            assert len(list(answers)) == 4


class Trap:
    """Notes every use that opening a file might make of it."""

    sprung = []

    def __new__(cls, *arguments, **options):
        cls.sprung.append("made")
        return super().__new__(cls)

    def __setstate__(self, state):
        self.sprung.append("state")

    def __reduce__(self):
        return spring, ()


def spring(*arguments, **options):
    Trap.sprung.append("called")


@functools.cache
def saved():
    skops = pytest.importorskip("skops.io")
    data = skops.dumps(FITTED[0])
    trusted = skops.get_untrusted_types(data=data)
    assert all(name.startswith("sklearn_nsgf.") for name in trusted)
    return data, trusted


def check_refused(data, trusted):
    """An error, and nothing of the test module was run."""
    skops = pytest.importorskip("skops.io")
    Trap.sprung.clear()
    with warnings.catch_warnings(), pytest.raises(Exception):
        warnings.simplefilter("ignore")
        skops.loads(data, trusted=trusted)
    assert not Trap.sprung


@cases(40)
@given(st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_short_is_refused(part):
    data, trusted = saved()
    check_refused(data[: int(part * len(data))], trusted)


@cases(60)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_file_with_damaged_contents_is_refused(part, mask):
    """Any byte of any content; a checksum guards them all."""
    data, trusted = saved()
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        places = []
        for info in file.infolist():
            name_and_extra = data[info.header_offset + 26 : info.header_offset + 30]
            start = info.header_offset + 30 + sum(np.frombuffer(name_and_extra, dtype="<u2").tolist())
            places.append(np.arange(start, start + info.compress_size))
    place = np.concatenate(places)[int(part * sum(map(len, places)))]
    damaged = bytearray(data)
    damaged[place] ^= mask
    check_refused(bytes(damaged), trusted)


def rewritten(data, change):
    """The file with its members changed by name."""
    answer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as file, zipfile.ZipFile(answer, "w") as copy:
        for name in file.namelist():
            copy.writestr(name, change(name, file.read(name)))
    return answer.getvalue()


def nodes_of(schema):
    """All parts of a schema that make an object of the type that they name."""
    if isinstance(schema, dict):
        if schema.get("__loader__") == "ObjectNode":
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from nodes_of(part)


@cases(60)
@given(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([("test_fuzz", "Trap"), ("test_fuzz", "spring"), ("os", "system"), ("builtins", "eval")]),
    st.sampled_from(
        [None, "ObjectNode", "TypeNode", "FunctionNode", "MethodNode", "PartialNode", "ReduceNode"]
    ),
)
def test_a_file_that_names_another_type_is_refused(part, name, loader):
    data, trusted = saved()

    def change(member, content):
        if member != "schema.json":
            return content
        schema = json.loads(content)
        nodes = list(nodes_of(schema))
        node = nodes[int(part * len(nodes))]
        node["__module__"], node["__class__"] = name
        node["__loader__"] = loader
        return json.dumps(schema)

    check_refused(rewritten(data, change), trusted)


def test_a_file_with_a_pickle_in_place_of_an_array_is_refused():
    data, trusted = saved()
    with io.BytesIO() as file:
        np.save(file, np.array([Trap()], dtype=object), allow_pickle=True)
        pickled = file.getvalue()
    check_refused(rewritten(data, lambda name, old: pickled if name.endswith(".npy") else old), trusted)
