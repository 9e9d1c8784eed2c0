"""A source and a target sample in one array, told apart by `sample_domain`.

Rows with `sample_domain >= 0` are the source and rows with `sample_domain < 0` the target, as in skada.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_regressor
from sklearn.model_selection import BaseCrossValidator, StratifiedKFold
from sklearn.utils import Tags, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted

from sklearn_nsgf._documentation import question
from sklearn_nsgf._frames import is_missing, library_of
from sklearn_nsgf._sklearn import available_if, check_array, check_method_params, safe_indexing
from sklearn_nsgf._types import Answer, Seed
from sklearn_nsgf._warn import warn_caller

__all__ = ["DomainKFold", "SourceOnly", "split_domains", "stack_domains"]

SOURCE, TARGET = 1, -2
UNLABELLED = -1
# NumPy turns -1 among strings into text.
UNLABELLED_MARKS = (UNLABELLED, str(UNLABELLED))


def stack_domains(
    X_source: ArrayLike,
    X_target: ArrayLike,
    y_source: ArrayLike | None = None,
    y_target: ArrayLike | None = None,
) -> tuple[Answer, Answer, NDArray[np.int64]]:
    """Put a source and a target sample into one array.

    Parameters
    ----------
    X_source : array-like or DataFrame of shape (n_source, n_features), or images
    X_target : array-like or DataFrame of shape (n_target, n_features), or images
        Both of one kind: arrays, or pandas or polars DataFrames with the same columns. Memory-mapped
        arrays are read into memory.
    y_source : array-like of shape (n_source,), default=None
    y_target : array-like of shape (n_target,), default=None
        Labels, or values of a regression. If only one side has them, the rows of the other get a placeholder:
        -1 beside integers and strings, as in `sklearn.semi_supervised`, and NaN beside floats. An integer -1
        among the labels means unlabelled, too.

    Returns
    -------
    X : ndarray or DataFrame of shape (n_source + n_target, n_features), or images
        The source, then the target. Equal dtypes are kept; a pandas DataFrame gets a new index.
    y : ndarray of shape (n_source + n_target,) or None
        None if there are no labels at all. Strings with placeholders have the dtype object.
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
    >>> stack_domains([[0.0], [1.0]], [[5.0]], y_source=["cat", "dog"])[1]
    array(['cat', 'dog', -1], dtype=object)
    """
    X = _stack_samples(X_source, X_target)
    n_source, n_target = len(X_source), len(X_target)
    sample_domain = np.repeat(np.array([SOURCE, TARGET], dtype=np.int64), [n_source, n_target])
    if y_source is None and y_target is None:
        return X, None, sample_domain
    y_source = _check_labels(y_source, n_source, "y_source", "y_target")
    y_target = _check_labels(y_target, n_target, "y_target", "y_source")
    if y_source is None:
        y_target, y_source = _with_placeholders(y_target, n_source, "y_target", "y_source")
    elif y_target is None:
        y_source, y_target = _with_placeholders(y_source, n_target, "y_source", "y_target")
    return X, _concatenate(y_source, y_target, "y_source", "y_target"), sample_domain


def split_domains(X: ArrayLike, sample_domain: ArrayLike, y: ArrayLike | None = None) -> tuple[Answer, ...]:
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
        _check_n_labels(y, len(is_source))
        parts += [safe_indexing(y, rows) for rows in (np.flatnonzero(is_source), np.flatnonzero(~is_source))]
    return tuple(parts)


def any_array(y: ArrayLike) -> np.ndarray:
    """`y` as an array of any shape and type, lists and scikit-learn's array-likes included."""
    options = {"ensure_2d": False, "allow_nd": True, "dtype": None, "ensure_all_finite": False}
    return check_array(y, "y", **options)


def is_target(y: ArrayLike | None) -> bool:
    """Whether `y` is a target sample, and not None or labels of one dimension."""
    return y is not None and (hasattr(y, "columns") or any_array(y).ndim > 1)


def is_unlabelled(y: ArrayLike, marks: tuple[int | str, ...] = UNLABELLED_MARKS) -> np.ndarray:
    """Which rows have no label.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
    marks : tuple
        Labels that stand for none, beside None and NaN.

    Returns
    -------
    unlabelled : bool ndarray of shape (n_samples,)
    """
    labels = any_array(y)

    def is_none(label) -> bool:
        return is_missing(label) or label in marks

    return np.array([any(map(is_none, row)) for row in labels.reshape(len(labels), -1).tolist()])


def source_mask(sample_domain: ArrayLike, n_samples: int, *, require: tuple[str, ...] = ()) -> np.ndarray:
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
    try:
        values = np.asarray(sample_domain)
    except ValueError as error:
        raise ValueError(f"sample_domain has rows of different lengths: {expected}.") from error
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
                f"sample_domain has no {domain} rows: its values are {np.unique(values)[:4].tolist()}. "
                "Expected >= 0 for the source and < 0 for the target, such as 1 and -2."
                + question("faq-no-target-rows")
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

    def __init__(self, n_splits: int = 5, *, shuffle: bool = False, random_state: Seed = None) -> None:
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def split(
        self,
        X: ArrayLike,
        y: Any = None,
        groups: ArrayLike | None = None,
        *,
        sample_domain: ArrayLike | None = None,
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Indices of the rows to train and to test on.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Only the number of rows matters.
        y : object
            Ignored.
        groups : array-like of shape (n_samples,), default=None
            Read as `sample_domain` if that is not given. It is what scikit-learn's searches hand to a
            splitter without metadata routing. The estimator does not see it: a flow would then learn to
            generate both samples together.
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
                "after sklearn.set_config(enable_metadata_routing=True). groups=... reaches the splitter "
                "alone, and is for estimators that need no sample_domain." + question("faq-domain-kfold")
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

    def get_n_splits(
        self, X: Any = None, y: Any = None, groups: Any = None, *, sample_domain: Any = None
    ) -> int:
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
    """Classifier or regressor that learns from the rows of the source alone, for the rows of the target.

    A `transport` moves the rows of the source onto the target, and `estimator` learns from the moved rows and
    their labels. The rows to predict are the target's, and are not moved. Labels of target rows, often only
    placeholders, are never learnt from.

    Parameters
    ----------
    estimator : estimator
        Classifier or regressor. It is cloned.
    transport : estimator, default=None
        One of this package, or another whose `fit` takes `sample_domain` and whose `transform` moves rows of
        the source to the units of the target. It is cloned and fitted to the rows of both samples. With
        ``label_mode="condition"`` or ``"couple"`` it is given the labels. A scaler is a step before
        `SourceOnly`, not a part of the transport. By default the rows of the source are taken as they are:
        an earlier step of the pipeline has moved them.

    Attributes
    ----------
    estimator_ : estimator
        The fitted clone.
    transport_ : estimator or None
        The fitted clone of `transport`.
    classes_ : ndarray of shape (n_classes,)
        Labels of the source, if `estimator` is a classifier.
    n_features_in_ : int
        Number of features, if `estimator_` has it.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if `estimator_` has them.

    Notes
    -----
    A search needs metadata routing, to pass `sample_domain` to `fit`, `score` and the splitter, and no
    `scoring`: `score` leaves out the rows without a label. scikit-learn's own scorers ("accuracy") pass no
    `sample_domain` and count placeholders as errors; they are for rows of the target that all have labels.

    Without `transport`, in a pipeline behind one, new rows of the target have to be marked as such, or that
    transport moves them: ``pipeline.predict(X, sample_domain=np.full(len(X), -2))``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_nsgf import SinkhornFlowTransport
    >>> from sklearn_nsgf.domains import SourceOnly, stack_domains
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat(["low", "high"], 50)
    >>> X_source = rng.normal(size=(100, 1)) + np.where(labels == "high", 4.0, -4.0)[:, None]
    >>> X_target = X_source + 8
    >>> X, y, sample_domain = stack_domains(X_source, X_target, labels)
    >>> flow = SinkhornFlowTransport(n_flows=2, max_iter=50, random_state=0)
    >>> model = SourceOnly(KNeighborsClassifier(), transport=flow).fit(X, y, sample_domain=sample_domain)
    >>> model.predict([[4.0], [12.0]])
    array(['low', 'high'], dtype='<U4')
    """

    __metadata_request__fit = {"sample_domain": True}
    __metadata_request__score = {"sample_domain": True}

    estimator_: Any
    transport_: Any

    def __init__(self, estimator: Any, *, transport: Any = None) -> None:
        self.estimator = estimator
        self.transport = transport

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        sample_domain: ArrayLike | None = None,
        **fit_params: Any,
    ) -> Self:
        """Fit the transport to both samples and the estimator to the moved rows of the source.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Labels or values. The estimator never sees those of the target's rows, which may be placeholders:
            -1, None or NaN for labels, None or NaN for values.
        sample_domain : array-like of shape (n_samples,), default=None
            At least 0 for rows of the source, negative for rows of the target. By default all rows are
            the source's; a transport needs both.
        **fit_params : dict
            Passed to `estimator.fit`; of those with an entry for each row of `X`, the entries of the source.
            With metadata routing the estimator must have requested them.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If `sample_domain` does not fit `X`, names no rows of the source, or is missing or names no rows
            of the target where there is a transport, or if a row of the source has a placeholder.
        TypeError
            If `transport` is a pipeline or no transformer.
        """
        _check_transport(self.transport)
        if get_config()["enable_metadata_routing"]:
            fit_params = process_routing(self, "fit", sample_domain=sample_domain, **fit_params).estimator.fit
        self._marks = () if is_regressor(self.estimator) else UNLABELLED_MARKS
        self.transport_ = None
        if sample_domain is not None:
            require = ("source",) if self.transport is None else ("source", "target")
            is_source = source_mask(sample_domain, _n_rows(X), require=require)
            _check_n_labels(y, len(is_source))
            rows = np.flatnonzero(is_source)
            fit_params = check_method_params(X, fit_params, indices=rows)
            y_source = self._labels_of_source(y, rows)
            if self.transport is not None:
                sees_labels = getattr(self.transport, "label_mode", None) != "ignore"
                self.transport_ = clone(self.transport)
                self.transport_.fit(X, y if sees_labels else None, sample_domain=sample_domain)
            X, y = self._moved(safe_indexing(X, rows), y_source), y_source
        elif self.transport is not None:
            raise ValueError(
                "transport needs the rows of both samples, and sample_domain is None: expected >= 0 for the "
                "source and < 0 for the target. A search or pipeline passes it on after "
                "sklearn.set_config(enable_metadata_routing=True)."
            )
        elif y is not None and is_unlabelled(y, self._marks).any():
            # Without a target there are no placeholders, and -1 is a class like any other.
            self._marks = ()
        self.estimator_ = clone(self.estimator).fit(X, y, **fit_params)
        for name in ("classes_", "n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def _labels_of_source(self, y, rows: np.ndarray):
        labels = _plain_labels(y, rows)
        n_unlabelled = 0 if y is None else is_unlabelled(labels, self._marks).sum()
        if n_unlabelled:
            raise ValueError(
                f"{n_unlabelled} rows of the source have no label in y but a placeholder (-1, None or NaN): "
                "the estimator learns from the source, and expects a label there. Leave these rows out. If "
                "-1 is one of the classes, give it another name."
            )
        return labels

    def _moved(self, X, y):
        """Rows of the source on the target, of the type of `X`."""
        if self.transport_ is None:
            return X
        sees_labels = getattr(self.transport_, "label_mode", None) == "condition"
        moved = self.transport_.transform(X, **({"labels": y} if sees_labels else {}))
        library = library_of(X)
        if library is None or library_of(moved):
            return moved
        return sys.modules[library].DataFrame(dict(zip(X.columns, moved.T, strict=True)))

    @available_if(_inner_has("predict"))
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels or values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the target. They are not moved.

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    @available_if(_inner_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the target. They are not moved.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @available_if(_inner_has("decision_function"))
    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Decision values of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the target. They are not moved.

        Returns
        -------
        values : ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    @available_if(_inner_has("score"))
    def score(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        sample_domain: ArrayLike | None = None,
    ) -> float:
        """Score of the estimator on the rows that have a label.

        These are rows of the target. If none of them has a label, the moved rows of the source are scored
        instead, the usual stand-in where only the source has labels: it says how well the classes are told
        apart after the transport, not whether the transport is right.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            True labels or values. Rows with a placeholder are left out: -1, None or NaN for labels, None or
            NaN for values.
        sample_weight : array-like of shape (n_samples,), default=None
        sample_domain : array-like of shape (n_samples,), default=None
            At least 0 for rows of the source, negative for rows of the target. By default all rows are the
            target's.

        Returns
        -------
        score : float

        Raises
        ------
        ValueError
            If no row has a label, or `y` or `sample_domain` does not fit `X`.

        Warns
        -----
        UserWarning
            If there is a transport, some rows have a placeholder and there is no `sample_domain`: the rows
            with labels may then be the source's, unmoved.
        """
        check_is_fitted(self)
        n_rows = _n_rows(X)
        _check_n_labels(y, n_rows)
        has_label = np.ones(n_rows, dtype=bool) if y is None else ~is_unlabelled(y, self._marks)
        if not has_label.any():
            raise ValueError(
                f"None of the {n_rows} rows has a label in y: all are placeholders (-1, None or NaN), and "
                "there is nothing to score. Pass rows with labels, of the target or of the source."
            )
        is_source = np.zeros(n_rows, dtype=bool)
        if sample_domain is not None:
            is_source = source_mask(sample_domain, n_rows)
        elif self.transport_ is not None and not has_label.all():
            warn_caller(
                "Some rows have no label and sample_domain is None: the rows with labels are scored as rows "
                "of the target, and are not moved. Pass sample_domain; a search passes it to score after "
                "sklearn.set_config(enable_metadata_routing=True).",
                UserWarning,
            )
        on_target = has_label & ~is_source
        rows = np.flatnonzero(on_target if on_target.any() else has_label)
        weights = {} if sample_weight is None else {"sample_weight": safe_indexing(sample_weight, rows)}
        X, y = safe_indexing(X, rows), _plain_labels(y, rows)
        return self.estimator_.score(X if on_target.any() else self._moved(X, y), y, **weights)

    def get_metadata_routing(self) -> MetadataRouter:
        """Which metadata this estimator uses and which it hands on; see scikit-learn's user guide.

        Returns
        -------
        routing : MetadataRouter
        """
        mapping = MethodMapping().add(caller="fit", callee="fit")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(estimator=self.estimator, method_mapping=mapping)

    def __sklearn_tags__(self) -> Tags:
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.input_tags = inner.input_tags
        return tags


def _n_rows(X) -> int:
    return X.shape[0] if hasattr(X, "shape") else len(X)


def _check_transport(transport) -> None:
    if hasattr(transport, "steps"):
        raise TypeError(
            "transport is a pipeline: new rows of the target would miss its other steps. Pass the last step "
            "as transport, and make the steps before it steps before SourceOnly."
        )
    if transport is not None and not (hasattr(transport, "fit") and hasattr(transport, "transform")):
        raise TypeError(
            f"transport={transport!r}: expected None or an estimator with fit and transform, such as "
            "SinkhornFlowTransport()."
        )


def _check_n_labels(y, n_rows: int) -> None:
    if y is not None and len(y) != n_rows:
        raise ValueError(f"y has {len(y)} entries and X has {n_rows} rows; expected as many.")


def _plain_labels(y, rows: np.ndarray):
    """The labels of some rows, without the dtype object that placeholders of other rows have brought."""
    if y is None:
        return None
    labels = np.asarray(safe_indexing(y, rows))
    return np.array(labels.tolist()) if labels.dtype == object else labels


def _stack_samples(X_source, X_target):
    for name, X in {"X_source": X_source, "X_target": X_target}.items():
        if issparse(X):
            raise TypeError(f"{name} is sparse; expected a dense array. Pass {name}.toarray().")
    library = library_of(X_source)
    if library != library_of(X_target):
        raise TypeError(
            f"X_source is {type(X_source).__module__}.{type(X_source).__name__} and X_target is "
            f"{type(X_target).__module__}.{type(X_target).__name__}; expected both of one kind."
        )
    if library is None:
        X_source, X_target = np.asarray(X_source), np.asarray(X_target)
    _check_features(X_source, X_target)
    for name, X in {"X_source": X_source, "X_target": X_target}.items():
        if X.shape[0] == 0:
            raise ValueError(f"{name} has no rows; expected at least one.")
    if library is None:
        return _concatenate(X_source, X_target, "X_source", "X_target")
    columns, other_columns = list(X_source.columns), list(X_target.columns)
    if columns != other_columns:
        raise ValueError(
            f"X_source has the columns {columns} and X_target has {other_columns}; expected the same in the "
            "same order. If only the order differs, pass X_target[list(X_source.columns)]."
        )
    package = sys.modules[library]
    if library == "pandas":
        return package.concat(_with_shared_categories(package, X_source, X_target), ignore_index=True)
    return package.concat([X_source, X_target], how="vertical_relaxed")


def _with_shared_categories(pandas, X_source, X_target) -> list:
    """Both frames with the same categories in each categorical column: pandas would make them text."""
    frames = [X_source, X_target]
    for name in X_source.columns:
        if all(isinstance(frame[name].dtype, pandas.CategoricalDtype) for frame in frames):
            longer, other = sorted((frame[name].cat.categories for frame in frames), key=len, reverse=True)
            categories = longer.union(other, sort=False)
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


def _with_placeholders(labels: np.ndarray, n_missing: int, name: str, missing: str):
    """The labels of one side, and placeholders of their kind for the rows of the other."""
    if labels.dtype.kind in "iu":
        return labels.astype(np.int64), np.full(n_missing, UNLABELLED)
    if labels.dtype.kind == "f":
        return labels, np.full(n_missing, np.nan, dtype=labels.dtype)
    if all(isinstance(label, str) for label in labels[~is_unlabelled(labels)].tolist()):
        return labels.astype(object), np.full(n_missing, UNLABELLED, dtype=object)
    raise ValueError(
        f"{missing} is None and {name} has dtype {labels.dtype}: only integers, strings and floats can be "
        f"filled up. Pass {missing} too, or integer labels (LabelEncoder makes them)."
    )


def _concatenate(first: np.ndarray, second: np.ndarray, first_name: str, second_name: str) -> np.ndarray:
    # NumPy would turn numbers into text without a word.
    if (first.dtype.kind in "biufc") != (second.dtype.kind in "biufc"):
        raise ValueError(
            f"{first_name} has dtype {first.dtype} and {second_name} has {second.dtype}; expected numbers in "
            "both or in neither."
        )
    return np.concatenate([first, second])
