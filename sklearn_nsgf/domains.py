"""A source and a target sample in one array, told apart by `sample_domain`.

Rows with `sample_domain >= 0` are the source and rows with `sample_domain < 0` the target, as in skada.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.model_selection import BaseCrossValidator, StratifiedKFold
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_array, check_is_fitted

from sklearn_nsgf._sklearn import check_method_params, safe_indexing

__all__ = ["DomainKFold", "SourceOnly", "split_domains", "stack_domains"]

SOURCE, TARGET = 1, -2
UNLABELLED = -1


def stack_domains(X_source, X_target, y_source=None, y_target=None):
    """Put a source and a target sample into one array.

    Parameters
    ----------
    X_source : array-like or DataFrame of shape (n_source, n_features), or images
    X_target : array-like or DataFrame of shape (n_target, n_features), or images
        Both of one kind: arrays, or pandas or polars DataFrames with the same columns. Memory-mapped
        arrays are read into memory.
    y_source : array-like of shape (n_source,), default=None
    y_target : array-like of shape (n_target,), default=None
        Labels. If only one side has them, the rows of the other get -1. The labels must then be integers,
        and none of them -1.

    Returns
    -------
    X : ndarray or DataFrame of shape (n_source + n_target, n_features), or images
        The source, then the target. Equal dtypes are kept; a pandas DataFrame gets a new index.
    y : ndarray of shape (n_source + n_target,) or None
        None if there are no labels at all.
    sample_domain : ndarray of shape (n_source + n_target,)
        1 for the source and -2 for the target, which are also skada's numbers.

    Raises
    ------
    TypeError
        If a sample is sparse, or one is a DataFrame and the other is not.
    ValueError
        If the features differ, a sample has no rows, or the labels do not fit.

    Examples
    --------
    >>> from sklearn_nsgf.domains import stack_domains
    >>> X, y, sample_domain = stack_domains([[0.0], [1.0]], [[5.0]], y_source=[3, 4])
    >>> X.ravel(), y, sample_domain
    (array([0., 1., 5.]), array([ 3,  4, -1]), array([ 1,  1, -2]))
    """
    X = _stack_samples(X_source, X_target)
    n_source, n_target = len(X_source), len(X_target)
    sample_domain = np.repeat(np.array([SOURCE, TARGET], dtype=np.int64), [n_source, n_target])
    if y_source is None and y_target is None:
        return X, None, sample_domain
    y_source = _check_labels(y_source, n_source, "y_source", "y_target")
    y_target = _check_labels(y_target, n_target, "y_target", "y_source")
    if y_source is None:
        y_source, y_target = np.full(n_source, UNLABELLED), _as_integers(y_target, "y_target", "y_source")
    elif y_target is None:
        y_source, y_target = _as_integers(y_source, "y_source", "y_target"), np.full(n_target, UNLABELLED)
    return X, _concatenate(y_source, y_target, "y_source", "y_target"), sample_domain


def split_domains(X, sample_domain, y=None):
    """Take the source and the target sample out of one array.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_features), or images
    sample_domain : array-like of shape (n_samples,)
        At least 0 for rows of the source, negative for rows of the target.
    y : array-like of shape (n_samples,), default=None
        Labels.

    Returns
    -------
    X_source, X_target : of the type of `X`
    y_source, y_target : of the type of `y`
        Only if `y` is given.

    Raises
    ------
    ValueError
        If the lengths differ, `sample_domain` holds something that is not a finite number, or one of the
        samples has no rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf.domains import split_domains
    >>> X_source, X_target = split_domains(np.array([[0.0], [5.0], [1.0]]), [1, -2, 1])
    >>> X_source.ravel(), X_target.ravel()
    (array([0., 1.]), array([5.]))
    """
    X = np.asarray(X) if isinstance(X, (list, tuple)) else X
    is_source = source_mask(sample_domain, X.shape[0], require=("source", "target"))
    parts = [safe_indexing(X, rows) for rows in (np.flatnonzero(is_source), np.flatnonzero(~is_source))]
    if y is not None:
        if len(y) != len(is_source):
            raise ValueError(f"y has {len(y)} entries and X has {len(is_source)} rows; expected as many.")
        parts += [safe_indexing(y, rows) for rows in (np.flatnonzero(is_source), np.flatnonzero(~is_source))]
    return tuple(parts)


def any_array(y) -> np.ndarray:
    """`y` as an array of any shape and type, lists and scikit-learn's array-likes included."""
    options = {"ensure_2d": False, "allow_nd": True, "dtype": None, "ensure_all_finite": False}
    return check_array(y, input_name="y", **options)


def is_target(y) -> bool:
    """Whether `y` is a target sample, and not None or labels of one dimension."""
    return y is not None and (hasattr(y, "columns") or any_array(y).ndim > 1)


def source_mask(sample_domain, n_samples: int, *, require: tuple[str, ...] = ()) -> np.ndarray:
    """Which rows are the source's.

    Parameters
    ----------
    sample_domain : array-like of shape (n_samples,)
    n_samples : int
        Number of rows of the array that it belongs to.
    require : tuple of {"source", "target"}, default=()
        Domains that must have rows.

    Returns
    -------
    is_source : bool ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If it is not a column of `n_samples` finite numbers, or a domain of `require` has no rows.
    """
    expected = "expected numbers, >= 0 for the source and < 0 for the target"
    values = np.asarray(sample_domain)
    if values.dtype.kind == "c":
        raise ValueError(f"sample_domain has dtype {values.dtype}: {expected}.")
    if values.dtype == bool:
        raise ValueError(
            f"sample_domain is boolean: {expected}. For a mask of the source's rows pass "
            "np.where(is_source, 1, -2)."
        )
    try:
        values = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample_domain has dtype {values.dtype}: {expected}.") from error
    if values.shape != (n_samples,):
        raise ValueError(
            f"sample_domain has the shape {values.shape} and X has {n_samples} rows; "
            f"expected the shape ({n_samples},)."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"sample_domain contains NaN or infinity: {expected}.")
    is_source = values >= 0
    for domain, rows in {"source": is_source, "target": ~is_source}.items():
        if domain in require and not rows.any():
            raise ValueError(
                f"sample_domain has no {domain} rows: expected >= 0 for the source and < 0 for the target."
            )
    return is_source


class DomainKFold(BaseCrossValidator):
    """K folds, each of which has its share of the source and of the target.

    Folds are balanced by domain, not by label.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=False
        Whether to shuffle the rows of each domain before splitting.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf.domains import DomainKFold
    >>> sample_domain = np.array([1, 1, 1, 1, -2, -2])
    >>> for train, test in DomainKFold(2).split(np.zeros((6, 1)), sample_domain=sample_domain):
    ...     sample_domain[test]
    array([ 1,  1, -2])
    array([ 1,  1, -2])

    With metadata routing a search hands `sample_domain` on to the splitter, the estimator and the scorer:

    >>> import sklearn
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_nsgf.domains import SourceOnly
    >>> classifier = SourceOnly(KNeighborsClassifier())
    >>> X, y = np.arange(6.0).reshape(-1, 1), [0, 0, 1, 1, 1, 1]
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     search = GridSearchCV(classifier, {"estimator__n_neighbors": [1, 2]}, cv=DomainKFold(2))
    ...     search.fit(X, y, sample_domain=sample_domain).predict([[0.0]])
    array([0])
    """

    __metadata_request__split = {"sample_domain": True}

    def __init__(self, n_splits=5, *, shuffle=False, random_state=None):
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def split(self, X, y=None, groups=None, *, sample_domain=None):
        """Indices of the rows to train and to test on.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Only the number of rows matters.
        y : object
            Ignored.
        groups : array-like of shape (n_samples,), default=None
            Read as `sample_domain` if that is not given. It is what scikit-learn's searches hand to a
            splitter without metadata routing.
        sample_domain : array-like of shape (n_samples,)
            At least 0 for rows of the source, negative for rows of the target.

        Returns
        -------
        splits : iterator of (train, test)
            Arrays of row numbers.

        Raises
        ------
        ValueError
            If there is no `sample_domain`, or a domain has fewer rows than there are folds.
        """
        domains = groups if sample_domain is None else sample_domain
        if domains is None:
            raise ValueError(
                "DomainKFold splits by domain and got no sample_domain. Pass it as "
                "search.fit(X, sample_domain=...) or cross_validate(..., params={'sample_domain': ...}) "
                "after sklearn.set_config(enable_metadata_routing=True), or as groups=... without metadata "
                "routing."
            )
        is_source = source_mask(domains, _n_rows(X), require=("source", "target"))
        folds = StratifiedKFold(self.n_splits, shuffle=self.shuffle, random_state=self.random_state)
        n_source, n_target = is_source.sum(), (~is_source).sum()
        if min(n_source, n_target) < self.n_splits:
            raise ValueError(
                f"DomainKFold(n_splits={self.n_splits}) needs at least {self.n_splits} rows of each domain; "
                f"got {n_source} of the source and {n_target} of the target."
            )
        return folds.split(np.zeros(len(is_source)), is_source)

    def get_n_splits(self, X=None, y=None, groups=None, *, sample_domain=None):
        """Number of folds.

        Parameters
        ----------
        X, y, groups, sample_domain : object
            Ignored.

        Returns
        -------
        n_splits : int
        """
        return self.n_splits


def _inner_has(method: str) -> Callable[[SourceOnly], bool]:
    def check(self: SourceOnly) -> bool:
        getattr(getattr(self, "estimator_", self.estimator), method)
        return True

    return check


class SourceOnly(MetaEstimatorMixin, BaseEstimator):
    """Classifier or regressor that learns from the rows of the source alone.

    Use it as the last step of a domain adaptation pipeline. The transport before it moves the source onto the
    target. Labels of target rows, often only placeholders, are never read.

    Parameters
    ----------
    estimator : estimator
        Classifier or regressor. It is cloned.

    Attributes
    ----------
    estimator_ : estimator
        The fitted clone.
    classes_ : ndarray of shape (n_classes,)
        Labels of the source, if `estimator` is a classifier.
    n_features_in_ : int
        Number of features, if `estimator_` has it.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if `estimator_` has them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_nsgf.domains import SourceOnly
    >>> X, y, sample_domain = [[0.0], [1.0], [0.1]], [7, 8, -1], [1, 1, -2]
    >>> SourceOnly(KNeighborsClassifier(1)).fit(X, y, sample_domain=sample_domain).predict([[0.1]])
    array([7])

    In a pipeline, after ``sklearn.set_config(enable_metadata_routing=True)``, mark new target rows as such.
    Otherwise the transport moves them like source rows::

        pipeline = make_pipeline(SinkhornFlowTransport(), SourceOnly(KNeighborsClassifier(1)))
        pipeline.fit(X, y, sample_domain=sample_domain)
        pipeline.predict(X_target, sample_domain=np.full(len(X_target), -2))

    scikit-learn's own scorers ("accuracy") and `cross_val_predict` pass no `sample_domain` to `predict`, and
    rows of the target are transported before they are judged. ``pipeline.score(X, y, sample_domain=...)`` is
    right.
    """

    __metadata_request__fit = {"sample_domain": True}

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y=None, *, sample_domain=None, **fit_params):
        """Fit the estimator to the rows of the source.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Labels or values. Those of the target's rows are not used.
        sample_domain : array-like of shape (n_samples,), default=None
            At least 0 for rows of the source, negative for rows of the target. By default all rows are
            the source's.
        **fit_params : dict
            Passed to `estimator.fit`; of those with an entry for each row of `X`, the entries of the source.
            With metadata routing the estimator must have requested them.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If `sample_domain` does not fit `X` or names no rows of the source.
        """
        if get_config()["enable_metadata_routing"]:
            fit_params = process_routing(self, "fit", sample_domain=sample_domain, **fit_params).estimator.fit
        if sample_domain is not None:
            is_source = source_mask(sample_domain, _n_rows(X), require=("source",))
            rows = np.flatnonzero(is_source)
            if y is not None and len(y) != len(is_source):
                raise ValueError(f"y has {len(y)} entries and X has {len(is_source)} rows; expected as many.")
            fit_params = check_method_params(X, fit_params, indices=rows)
            X = safe_indexing(X, rows)
            y = None if y is None else safe_indexing(y, rows)
        self.estimator_ = clone(self.estimator).fit(X, y, **fit_params)
        for name in ("classes_", "n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    @available_if(_inner_has("predict"))
    def predict(self, X):
        """Predict labels or values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    @available_if(_inner_has("predict_proba"))
    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @available_if(_inner_has("decision_function"))
    def decision_function(self, X):
        """Decision values of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        values : ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    @available_if(_inner_has("score"))
    def score(self, X, y=None, sample_weight=None):
        """Score of the estimator on all rows that are given.

        Rows of the target that carry -1 in the place of a label count as wrong.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            True labels or values.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return self.estimator_.score(X, y, **weights)

    def get_metadata_routing(self):
        """Which metadata this estimator uses and which it hands on; see scikit-learn's user guide.

        Returns
        -------
        routing : MetadataRouter
        """
        mapping = MethodMapping().add(caller="fit", callee="fit")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(estimator=self.estimator, method_mapping=mapping)

    def __sklearn_tags__(self):
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.input_tags = inner.input_tags
        return tags


def _n_rows(X) -> int:
    return X.shape[0] if hasattr(X, "shape") else len(X)


def _frame_package(X):
    """pandas or polars if `X` is its DataFrame; neither is imported for it."""
    for name in ("pandas", "polars"):
        package = sys.modules.get(name)
        if package is not None and isinstance(X, package.DataFrame):
            return package
    return None


def _stack_samples(X_source, X_target):
    for name, X in {"X_source": X_source, "X_target": X_target}.items():
        if issparse(X):
            raise TypeError(f"{name} is sparse; expected a dense array. Pass {name}.toarray().")
    package, other = _frame_package(X_source), _frame_package(X_target)
    if package is not other:
        raise TypeError(
            f"X_source is {type(X_source).__module__}.{type(X_source).__name__} and X_target is "
            f"{type(X_target).__module__}.{type(X_target).__name__}; expected both of one kind."
        )
    if package is None:
        X_source, X_target = np.asarray(X_source), np.asarray(X_target)
    _check_features(X_source, X_target)
    for name, X in {"X_source": X_source, "X_target": X_target}.items():
        if X.shape[0] == 0:
            raise ValueError(f"{name} has no rows; expected at least one.")
    if package is None:
        return _concatenate(X_source, X_target, "X_source", "X_target")
    columns, other_columns = list(X_source.columns), list(X_target.columns)
    if columns != other_columns:
        raise ValueError(
            f"X_source has the columns {columns} and X_target has {other_columns}; expected the same in the "
            "same order. If only the order differs, pass X_target[list(X_source.columns)]."
        )
    if package.__name__ == "pandas":
        return package.concat(_with_shared_categories(package, X_source, X_target), ignore_index=True)
    return package.concat([X_source, X_target], how="vertical_relaxed")


def _with_shared_categories(pandas, X_source, X_target) -> list:
    """Both frames with the same categories in each categorical column: pandas would make them text."""
    frames = [X_source, X_target]
    for name in X_source.columns:
        if all(isinstance(frame[name].dtype, pandas.CategoricalDtype) for frame in frames):
            categories = X_source[name].cat.categories.union(X_target[name].cat.categories, sort=False)
            frames = [frame.assign(**{name: frame[name].cat.set_categories(categories)}) for frame in frames]
    return frames


def _check_features(X_source, X_target) -> None:
    for name, X in {"X_source": X_source, "X_target": X_target}.items():
        if len(X.shape) < 2:
            raise ValueError(
                f"{name} has the shape {X.shape}; expected (n_samples, n_features) or images. For a single "
                "feature pass X.reshape(-1, 1)."
            )
    if X_source.shape[1:] != X_target.shape[1:]:
        raise ValueError(
            f"X_source has rows of the shape {X_source.shape[1:]} and X_target of {X_target.shape[1:]}; "
            "expected the same features."
        )


def _check_labels(labels, n_rows: int, name: str, other: str) -> np.ndarray | None:
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (n_rows,):
        raise ValueError(
            f"{name} has the shape {labels.shape}; expected one label for each of the {n_rows} rows, the "
            f"shape ({n_rows},)."
        )
    return labels


def _as_integers(labels: np.ndarray, name: str, missing: str) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"{missing} is None and {name} has dtype {labels.dtype}: only integer labels can be filled up, "
            f"with {UNLABELLED}. Pass {missing} too, or integer labels (LabelEncoder makes them)."
        )
    return labels.astype(np.int64)


def _concatenate(first: np.ndarray, second: np.ndarray, first_name: str, second_name: str) -> np.ndarray:
    # NumPy would turn numbers into text without a word.
    if (first.dtype.kind in "biufc") != (second.dtype.kind in "biufc"):
        raise ValueError(
            f"{first_name} has dtype {first.dtype} and {second_name} has {second.dtype}; expected numbers in "
            "both or in neither."
        )
    return np.concatenate([first, second])
