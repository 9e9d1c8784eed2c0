"""Distances between two samples.

Samples are rows, or images of three or four dimensions, which are flattened to rows. Where both samples have
column names, the columns of the second are taken in the order of the first.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import ot
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_chunked
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.metadata_routing import MetadataRequest

from sklearn_nsgf._frames import CATEGORICAL_DTYPES, column_of, dtype_of, is_missing, library_of, values_of
from sklearn_nsgf._sklearn import check_array, get_feature_names, safe_indexing
from sklearn_nsgf._torch import one_thread
from sklearn_nsgf._types import Seed
from sklearn_nsgf._warn import warn_caller
from sklearn_nsgf.domains import is_target, source_mask
from sklearn_nsgf.flow import sinkhorn_divergence as _sinkhorn_divergence

__all__ = [
    "classifier_two_sample_test",
    "energy_distance",
    "frechet_distance",
    "make_transport_scorer",
    "sinkhorn_divergence",
    "sliced_wasserstein_distance",
    "wasserstein_distance",
]

ENERGY_MAX_ROWS = 4096
SINKHORN_TOL = 1e-4
# Squares of the blur and of its inverse have to be floats.
LARGEST_RATIO = 1e100


def energy_distance(X: ArrayLike, Y: ArrayLike) -> float:
    r"""Squared energy distance between two samples, unbiased.

    ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` with Euclidean norms and without the pairs of a point
    with itself [1]_. For two samples of one distribution it is zero on average: about half of the values
    are negative.

    Parameters
    ----------
    X : array-like of shape (n_x, n_features), or images
    Y : array-like of shape (n_y, n_features), or images
        Images are flattened to rows. Columns of two DataFrames are matched by name. Of each sample at
        most 4 096 rows are used, drawn with a fixed seed.

    Returns
    -------
    distance : float
        In units of the data.

    Raises
    ------
    ValueError
        If the samples have different features or column names, or hold NaN, one has a single row, or the
        distance is too large for a float.

    References
    ----------
    .. [1] Székely, Rizzo. Energy statistics: A class of statistics based on distances. Journal of
       Statistical Planning and Inference, 2013.

    Examples
    --------
    >>> from sklearn_nsgf.metrics import energy_distance
    >>> energy_distance([[0.0], [0.0]], [[3.0], [3.0]])
    6.0
    """
    X, Y, unit = _check_pair(X, Y, ensure_min_samples=2)
    rng = np.random.default_rng(0)
    X, Y = (_thin(rows, rng) for rows in (X, Y))
    between = _sum_of_distances(X, Y) / (len(X) * len(Y))
    within_x = _sum_of_distances(X, X) / (len(X) * (len(X) - 1))
    within_y = _sum_of_distances(Y, Y) / (len(Y) * (len(Y) - 1))
    return _finite(2 * between - within_x - within_y, unit)


def wasserstein_distance(X: ArrayLike, Y: ArrayLike) -> float:
    r"""2-Wasserstein distance between two samples, exact.

    Parameters
    ----------
    X : array-like of shape (n_x, n_features), or images
    Y : array-like of shape (n_y, n_features), or images
        Images are flattened to rows. Columns of two DataFrames are matched by name. All rows are used:
        time grows about as the cube and memory as the square of their number.

    Returns
    -------
    distance : float
        In units of the data. Between two samples of one distribution it is not zero but falls with
        their size, slowly in many dimensions.

    Raises
    ------
    ValueError
        If the samples have different features or column names, or hold NaN, or the distance is too large for
        a float.

    Examples
    --------
    >>> from sklearn_nsgf.metrics import wasserstein_distance
    >>> wasserstein_distance([[0.0], [1.0]], [[5.0], [4.0]])
    4.0
    """
    X, Y, unit = _check_pair(X, Y)
    costs = ot.dist(X, Y)
    return _finite(math.sqrt(max(ot.emd2([], [], costs, numItermax=10_000_000), 0.0)), unit)


def sliced_wasserstein_distance(
    X: ArrayLike, Y: ArrayLike, *, n_projections: int = 200, random_state: Seed = 0
) -> float:
    r"""Sliced 2-Wasserstein distance between two samples.

    Root of the mean square of the 2-Wasserstein distances between the samples projected on random lines
    [1]_. The cost is one sort per line, even with very many rows.

    Parameters
    ----------
    X : array-like of shape (n_x, n_features), or images
    Y : array-like of shape (n_y, n_features), or images
        Images are flattened to rows. Columns of two DataFrames are matched by name.
    n_projections : int, default=200
        Number of lines.
    random_state : int, RandomState instance or None, default=0
        Seed of the directions. Compare only distances on the same lines.

    Returns
    -------
    distance : float
        In units of the data. A shift of length s has the distance s / sqrt(n_features), up to the draw
        of the lines; with a single feature it is the 2-Wasserstein distance itself.

    Raises
    ------
    ValueError
        If the samples have different features or column names, or hold NaN, or the distance is too large for
        a float.

    References
    ----------
    .. [1] Bonneel, Rabin, Peyré, Pfister. Sliced and Radon Wasserstein Barycenters of Measures. Journal of
       Mathematical Imaging and Vision 51(1), 2015.

    Examples
    --------
    >>> from sklearn_nsgf.metrics import sliced_wasserstein_distance
    >>> round(sliced_wasserstein_distance([[0.0], [1.0]], [[5.0], [4.0]]), 6)
    4.0
    """
    X, Y, unit = _check_pair(X, Y)
    check_scalar(n_projections, "n_projections", Integral, min_val=1)
    seed = check_random_state(random_state)
    distance = ot.sliced_wasserstein_distance(X, Y, n_projections=n_projections, p=2, seed=seed)
    return _finite(distance, unit)


def sinkhorn_divergence(X: ArrayLike, Y: ArrayLike, *, blur: float) -> float:
    r"""Debiased Sinkhorn divergence between two samples.

    Parameters
    ----------
    X : array-like of shape (n_x, n_features), or images
    Y : array-like of shape (n_y, n_features), or images
        Images are flattened to rows. Columns of two DataFrames are matched by name.
    blur : float
        In units of the data. For small blur the divergence tends to half the squared
        2-Wasserstein distance, for large blur to half the squared distance of the means.

    Returns
    -------
    divergence : float
        In squared units of the data.

    Raises
    ------
    ValueError
        If the samples have different features or column names, or hold NaN, `blur` is not positive or beyond
        what can be solved beside such samples, or the divergence is too large for a float.

    Warns
    -----
    ConvergenceWarning
        If a marginal error above 0.0001 remains. Problems with a larger `blur` are easier.

    Examples
    --------
    >>> from sklearn_nsgf.metrics import sinkhorn_divergence
    >>> round(sinkhorn_divergence([[0.0], [1.0]], [[5.0], [4.0]], blur=0.1), 6)
    8.0
    """
    if not isinstance(blur, Real) or not 0 < blur < math.inf:
        raise ValueError(f"blur={blur!r}: expected a positive number.")
    X, Y, unit = _check_pair(X, Y)
    if not 1 / LARGEST_RATIO < blur / unit < LARGEST_RATIO:
        raise ValueError(
            f"blur={blur} and samples of the size {unit:.0e}: expected a blur between 1e-100 and 1e100 times "
            "the size of the samples."
        )
    with one_thread:
        answer = _sinkhorn_divergence(torch.tensor(X), torch.tensor(Y), blur=blur / unit, tol=SINKHORN_TOL)
    if not answer.converged:
        warn_caller(
            f"The Sinkhorn divergence has a marginal error of {answer.marginal_error:.2g}, above "
            f"{SINKHORN_TOL}. Raise blur, which is {blur:.3g}.",
            ConvergenceWarning,
        )
    return _finite(answer.value, unit, unit)


def frechet_distance(X: ArrayLike, Y: ArrayLike) -> float:
    r"""Squared 2-Wasserstein distance between the normal distributions fitted to two samples.

    ``|m_X - m_Y|^2 + tr(C_X + C_Y - 2 (C_X^{1/2} C_Y C_X^{1/2})^{1/2})`` with the means and the
    covariances [1]_. Generated images are judged by it in the features of a classifier; only
    values in the same features can be compared, and the number that is known as FID is that of one
    particular Inception network [2]_.

    Parameters
    ----------
    X : array-like of shape (n_x, n_features), or images
    Y : array-like of shape (n_y, n_features), or images
        Images are flattened to rows. Columns of two DataFrames are matched by name. With few rows the
        distance is biased upwards, about in proportion to n_features / n.

    Returns
    -------
    distance : float
        In squared units of the features.

    Raises
    ------
    ValueError
        If the samples have different features or column names, or hold NaN, one has a single row, or the
        distance is too large for a float.

    References
    ----------
    .. [1] Dowson, Landau. The Fréchet distance between multivariate normal distributions. Journal of
       Multivariate Analysis 12(3), 1982.
    .. [2] Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter. GANs Trained by a Two Time-Scale Update
       Rule Converge to a Local Nash Equilibrium. NeurIPS 2017.

    Examples
    --------
    >>> from sklearn_nsgf.metrics import frechet_distance
    >>> frechet_distance([[0.0], [2.0]], [[3.0], [5.0]])
    9.0
    """
    X, Y, unit = _check_pair(X, Y, ensure_min_samples=2)
    shift = X.mean(axis=0) - Y.mean(axis=0)
    root_x, root_y = map(_covariance_root, (X, Y))
    # The singular values are the roots of the eigenvalues of the product of both covariances.
    between = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    distance = shift @ shift + np.square(root_x).sum() + np.square(root_y).sum() - 2 * between
    return _finite(max(distance, 0.0), unit, unit)


def classifier_two_sample_test(
    X: ArrayLike, Y: ArrayLike, *, classifier: Any = None, cv: Any = 5, random_state: Seed = 0
) -> float:
    r"""How well a classifier tells two samples apart.

    Its cross-validated accuracy [1]_, with both samples weighing the same: 0.5 where it cannot tell
    them apart, 1 where it always can.

    Parameters
    ----------
    X : array-like of shape (n_x, n_features), or images
    Y : array-like of shape (n_y, n_features), or images
        Images are flattened to rows. Columns of two DataFrames are matched by name.
    classifier : classifier, default=None
        By default a seeded `sklearn.ensemble.ExtraTreesClassifier` with at least 5 rows in a leaf (fewer for
        samples of less than 50 rows) and balanced classes. One that does not balance the classes may answer
        0.5 only because the sizes of the samples differ much.
    cv : int or cross-validation splitter, default=5
        Number of folds, stratified and shuffled, or a splitter.
    random_state : int, RandomState instance or None, default=0
        Seed of the folds and of the default classifier.

    Returns
    -------
    accuracy : float
        Between 0 and 1. For samples of one distribution it scatters around 0.5; rows that both samples
        share bring it below.

    Raises
    ------
    ValueError
        If the samples have different features or column names, or hold NaN, or one has fewer rows than
        there are folds.

    References
    ----------
    .. [1] Lopez-Paz, Oquab. Revisiting Classifier Two-Sample Tests. ICLR 2017. arXiv:1610.06545.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf.metrics import classifier_two_sample_test
    >>> X = np.linspace(0, 1, 50).reshape(-1, 1)
    >>> classifier_two_sample_test(X, X + 2)
    1.0
    """
    X, Y, _ = _check_pair(X, Y)
    rng = check_random_state(random_state)
    if isinstance(cv, Integral):
        if min(len(X), len(Y)) < cv:
            raise ValueError(
                f"cv={cv} needs at least {cv} rows in each sample; got {len(X)} in X and {len(Y)} in Y."
            )
        cv = StratifiedKFold(cv, shuffle=True, random_state=rng)
    if classifier is None:
        # Leaves that hold all of a small sample could not tell it from the other.
        least = max(1, min(5, min(len(X), len(Y)) // 10))
        classifier = ExtraTreesClassifier(
            min_samples_leaf=least, class_weight="balanced", random_state=rng.randint(np.iinfo(np.int32).max)
        )
    is_y = np.repeat([0, 1], [len(X), len(Y)])
    # Without `params` scikit-learn 1.6 stops where metadata routing is on.
    options = {"cv": cv, "scoring": "balanced_accuracy", "error_score": "raise", "params": {}}
    scores = cross_val_score(classifier, np.concatenate([X, Y]), is_y, **options)
    return float(scores.mean())


METRICS: dict[str, Callable[..., float]] = {
    "classifier_two_sample_test": classifier_two_sample_test,
    "energy_distance": energy_distance,
    "frechet_distance": frechet_distance,
    "sinkhorn_divergence": sinkhorn_divergence,
    "sliced_wasserstein_distance": sliced_wasserstein_distance,
    "wasserstein_distance": wasserstein_distance,
}
# Part of the target's root mean squared distance that is the blur of a scorer.
SCORER_BLUR = 0.1


def make_transport_scorer(
    metric: str | Callable[[NDArray[Any], NDArray[Any]], float] = "energy_distance",
    *,
    standardize: bool = True,
    **metric_params: Any,
) -> Callable[..., float]:
    """Make a scorer of transports, for `scoring=` in searches and cross-validation.

    What it compares depends on what it is given:

    - `y` of two or more dimensions is the target sample: `estimator.transform(X)` with `y`;
    - `sample_domain`: after `estimator.transform(X, sample_domain=sample_domain)` the rows of the source
      with those of the target, so that in a pipeline the earlier steps have transformed both;
    - neither: `estimator.sample` with `X`, for estimators that were fitted without a source; in a pipeline
      with `X` as it comes out of the earlier steps.

    Columns of two DataFrames are matched by name. A one-dimensional `y` holds labels and is not compared. An
    estimator with ``label_mode="condition"`` is given them. For a fitted search, the best estimator is
    scored. With metadata routing, a search passes `sample_domain` on; without it, searches pass none to a
    scorer.

    Parameters
    ----------
    metric : str or callable, default="energy_distance"
        Name of a function of `sklearn_nsgf.metrics`, or a callable of two arrays of shape
        (n, n_features), the transported rows and the target, that returns a float, the lower the better.
        Images are flattened to rows.
    standardize : bool, default=True
        Whether each feature is measured in the target's standard deviation, that of the rows which are
        compared; images have one for all pixels. Otherwise the feature with the largest unit decides, and a
        search over scalers prefers small units.
    **metric_params : dict
        Keyword arguments of `metric`. "sinkhorn_divergence" without `blur` takes 0.1 times the root mean
        squared distance between the rows of the target that is compared: all estimators of a search are
        scored on the same scale, whatever blur they were fitted with.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None, *, sample_domain=None)`` returns minus the metric, the higher the
        better.

    Raises
    ------
    ValueError
        If there is no metric of that name.
    TypeError
        If the metric does not take `metric_params`.

    Examples
    --------
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sklearn_nsgf.metrics import make_transport_scorer
    >>> scorer = make_transport_scorer("wasserstein_distance")
    >>> scorer
    make_transport_scorer('wasserstein_distance')
    >>> X, y = [[0.0], [1.0]], [[5.0], [4.0]]
    >>> scorer(FunctionTransformer().fit(X), X, y)  # in units of y's deviation, which is 0.5
    -8.0
    """
    if not callable(metric):
        if not isinstance(metric, str) or metric not in METRICS:
            raise ValueError(f"metric={metric!r}: expected a callable or one of {sorted(METRICS)}.")
        # A misspelt name should not wait for the first score.
        inspect.signature(METRICS[metric]).bind_partial(None, None, **metric_params)
    return _TransportScorer(metric, standardize, metric_params)


class _TransportScorer:
    def __init__(self, metric, standardize: bool, metric_params: dict):
        self.metric, self.standardize = metric, standardize
        self.metric_params = metric_params

    def __repr__(self):
        name = repr(self.metric) if isinstance(self.metric, str) else _name(self.metric)
        options = self.metric_params if self.standardize else {"standardize": False, **self.metric_params}
        arguments = [name, *(f"{key}={value!r}" for key, value in options.items())]
        return f"make_transport_scorer({', '.join(arguments)})"

    def get_metadata_routing(self):
        """Request `sample_domain`; `set_score_request` is not needed."""
        request = MetadataRequest(owner=repr(self))
        request.score.add_request(param="sample_domain", alias=True)
        return request

    def __call__(self, estimator, X, y=None, *, sample_domain=None):
        *samples, features = _with_indicators(*_samples_to_compare(estimator, X, y, sample_domain))
        samples = list(map(np.asarray, samples))
        moved, target = _flatten(*samples)
        if self.standardize:
            moved, target = (
                check_array(rows, name, dtype=np.float64, ensure_all_finite=False)
                for name, rows in {"X": moved, "y": target}.items()
            )
            unit = _deviations(target, None if samples[0].ndim > 2 else 0, features)
            # The metric refuses what is infinite.
            with np.errstate(over="ignore"):
                moved, target = moved / unit, target / unit
        params = dict(self.metric_params)
        if self.metric == "sinkhorn_divergence" and "blur" not in params:
            params["blur"] = SCORER_BLUR * _root_mean_squared_distance(target)
        metric = self.metric if callable(self.metric) else METRICS[self.metric]
        return -float(metric(moved, target, **params))


def _deviations(target: np.ndarray, axis: int | None, features: np.ndarray | None) -> np.ndarray:
    """Standard deviations, of all columns of a feature together, or 1 where nothing varies."""
    # Squares of extreme numbers overflow.
    largest = np.abs(target).max(axis=axis)
    if features is not None:
        largest = np.maximum.reduceat(largest, np.flatnonzero(np.diff(features, prepend=-1)))[features]
    largest = np.where(largest > 0, largest, 1)
    variance = (target / largest).var(axis=axis)
    if features is not None:
        variance = np.bincount(features, variance)[features]
    deviations = np.sqrt(variance) * largest
    return np.where(deviations > 0, deviations, 1)


def _name(function) -> str:
    return getattr(function, "__qualname__", repr(function))


def _samples_to_compare(estimator, X, y, sample_domain):
    """The transported or generated sample, and the target sample."""
    while hasattr(estimator, "best_estimator_"):
        estimator = estimator.best_estimator_
    last_step = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    has_target = is_target(y)
    sees_labels = getattr(last_step, "label_mode", None) == "condition"
    labels = {"labels": y} if sees_labels and not has_target else {}
    if has_target:
        if sample_domain is not None:
            raise ValueError(
                "y holds a target sample and sample_domain is given too; expected one of them, with "
                "sample_domain labels or no y."
            )
        moved = estimator.transform(X)
        names = get_feature_names(moved)
        return moved, _by_name(y, get_feature_names(X) if names is None else names, "y")
    if sample_domain is not None:
        n_samples = X.shape[0] if hasattr(X, "shape") else len(X)
        is_source = source_mask(sample_domain, n_samples, require=("source", "target"))
        moved = estimator.transform(X, sample_domain=sample_domain, **labels)
        moved = moved if library_of(moved) else np.asarray(moved)
        return tuple(safe_indexing(moved, np.flatnonzero(rows)) for rows in (is_source, ~is_source))
    # The package's own estimators know what they were fitted on.
    if not hasattr(last_step, "sample") or not getattr(last_step, "from_noise_", True):
        raise ValueError(
            f"{type(last_step).__name__} transports a source to a target, and the scorer got X alone. Pass "
            "the target sample as y, or both samples in X with sample_domain; a search hands sample_domain "
            "to its scorer only after sklearn.set_config(enable_metadata_routing=True)."
        )
    target = X if last_step is estimator else estimator[:-1].transform(X)
    n_samples = len(target) if labels else min(len(target), ENERGY_MAX_ROWS)
    drawn = last_step.sample(n_samples, random_state=0, **labels)
    return drawn, _by_name(target, getattr(last_step, "feature_names_in_", None), "X", "the fit")


def _root_mean_squared_distance(rows: np.ndarray) -> float:
    rows, _, unit = _check_pair(rows, rows)
    distance = _finite(math.sqrt(2 * rows.var(axis=0, ddof=1).sum()) if len(rows) > 1 else 0.0, unit)
    if distance == 0:
        raise ValueError(
            "the target's rows are all equal, and its blur would be 0: pass a positive blur to "
            "make_transport_scorer('sinkhorn_divergence', blur=...)."
        )
    return distance


def _covariance_root(X: np.ndarray) -> np.ndarray:
    """A matrix R with ``R^T R`` the covariance of the rows."""
    root = (X - X.mean(axis=0)) / np.sqrt(len(X) - 1)
    return np.linalg.qr(root, mode="r") if len(X) > X.shape[1] else root


def _check_pair(X, Y, **options) -> tuple[np.ndarray, np.ndarray, float]:
    """Both samples around a common centre and in a unit in which their squares are no larger than a float.

    The unit is a power of two, which costs no precision.
    """
    X, Y, _ = _with_indicators(X, _by_name(Y, get_feature_names(X)))
    X, Y = (_check_sample(sample, name, **options) for name, sample in {"X": X, "Y": Y}.items())
    X, Y = _flatten(X, Y)
    X, Y, coarse = _in_common_unit(X, Y)
    # Distances are computed from squared norms, which lose a shift that both samples share.
    centre = X.mean(axis=0)
    X, Y, fine = _in_common_unit(X - centre, Y - centre)
    return X, Y, coarse * fine


def _by_name(Y, names, name: str = "Y", other: str = "X"):
    """Y with its columns in the order of `names`, those of another sample, if both have names."""
    own_names = get_feature_names(Y)
    if names is None or own_names is None or list(names) == list(own_names):
        return Y
    missing = [column for column in names if column not in own_names]
    unknown = [column for column in own_names if column not in names]
    if missing or unknown or len(set(names)) < max(len(names), len(own_names)):
        raise ValueError(
            f"{name} lacks the columns {missing} of {other} and has {unknown}, which {other} has not: "
            "expected the same names, once each, in any order. Select the columns that both have, or pass "
            "arrays."
        )
    return safe_indexing(Y, list(names), axis=1)


def _with_indicators(X, Y):
    """Two tables with an indicator of each category in place of the columns that hold categories.

    Rows that differ in one category are at distance 1. Also returned is the number of the feature of each
    column, or None where there are no categories and both samples are as they came.
    """
    are_tables = all(library_of(each) or getattr(each, "dtype", None) == np.dtype(object) for each in (X, Y))
    if not are_tables or X.shape[1:] != Y.shape[1:] or len(X.shape) != 2:
        return X, Y, None
    columns = [[column_of(each, place) for each in (X, Y)] for place in range(X.shape[1])]
    if not any(_holds_categories(column) for pair in columns for column in pair):
        return X, Y, None
    parts, features = ([], []), []
    for place, pair in enumerate(columns):
        values = list(map(values_of, pair))
        if any(map(_holds_categories, pair)):
            lists = [column.tolist() for column in values]
            title = f"The column {getattr(X, 'columns', range(X.shape[1]))[place]!r}"
            for name, each in zip("XY", lists, strict=True):
                if any(map(is_missing, each)):
                    raise ValueError(
                        f"{title} of {name} has missing categories; expected one in each row. Give them a "
                        "category of their own, or leave the rows out."
                    )
            if len({isinstance(value, str) for each in lists for value in each}) > 1:
                raise TypeError(
                    f"{title} holds text and numbers, {lists[0][:3]} in X and {lists[1][:3]} in Y; expected "
                    "one of them in both samples."
                )
            codes = {value: code for code, value in enumerate(dict.fromkeys(lists[0] + lists[1]))}
            values = [np.array([codes[value] for value in each]) for each in lists]
            values = [(column[:, None] == np.arange(len(codes))) * math.sqrt(0.5) for column in values]
        else:
            values = [_numbers(column, place)[:, None] for column in values]
        features += [place] * values[0].shape[1]
        for part, column in zip(parts, values, strict=True):
            part.append(column)
    return *(np.hstack(part) for part in parts), np.array(features)


def _numbers(column: np.ndarray, place: int) -> np.ndarray:
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"Column {place} has values that are no numbers, such as {column[0]!r}: the argument must be a "
            "string or a number. Give categories a categorical dtype; encode dates as numbers."
        ) from error


def _holds_categories(column) -> bool:
    if dtype_of(column) in CATEGORICAL_DTYPES:
        return True
    values = values_of(column)
    return values.dtype.kind in "OUST" and any(isinstance(value, str) for value in values.tolist())


def _check_sample(X, name: str, **options) -> np.ndarray:
    expected = "expected rows (n, n_features) or images (n, H, W), (n, H, W, C) or (n, C, H, W)"
    try:
        shape = np.shape(X)
    except ValueError as error:
        raise ValueError(f"{name} is a list of samples of different shapes; {expected}.") from error
    if not 2 <= len(shape) <= 4:
        advice = f" For a single feature pass {name}.reshape(-1, 1)." if len(shape) == 1 else ""
        raise ValueError(f"{name} has the shape {tuple(shape)}; {expected}.{advice}")
    return check_array(X, name, dtype=np.float64, allow_nd=True, **options)


def _flatten(X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as rows, if their samples have the same shape."""
    if X.shape[1:] != Y.shape[1:]:
        what_x, what_y = (
            f"{Z.shape[1]} features" if Z.ndim == 2 else f"images of the shape {Z.shape[1:]}" for Z in (X, Y)
        )
        raise ValueError(f"X has {what_x} and Y has {what_y}; expected the same.")
    return X.reshape(len(X), -1), Y.reshape(len(Y), -1)


def _in_common_unit(X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Both divided by a power of two next to the largest number, which is exact, and that power.

    It is a normal number: NumPy below 2 warns where it divides by a lesser one.
    """
    largest = max(np.abs(X).max(), np.abs(Y).max())
    unit = math.ldexp(1.0, max(math.frexp(largest)[1], sys.float_info.min_exp) - 1) if largest > 0 else 1.0
    return X / unit, Y / unit, unit


def _finite(distance: float, *units: float) -> float:
    """The distance in the data's own units."""
    distance = math.prod([float(distance), *units])
    if not math.isfinite(distance):
        raise ValueError(
            f"The distance of these samples is {distance} in float64: expected numbers whose distance a "
            "float can hold. Divide X and Y by a common number."
        )
    return distance


def _thin(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(rows) <= ENERGY_MAX_ROWS:
        return rows
    return rows[rng.choice(len(rows), ENERGY_MAX_ROWS, replace=False)]


def _sum_of_distances(X: np.ndarray, Y: np.ndarray) -> float:
    # Parts of other sizes, as in the workers of a search, would round differently.
    return sum(float(chunk.sum()) for chunk in pairwise_distances_chunked(X, Y, n_jobs=1))
