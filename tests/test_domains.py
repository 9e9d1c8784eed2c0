import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from mean_shift import MeanShift, shifted_domains
from scipy.sparse import csr_matrix
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import check_estimator

from sklearn_nsgf.domains import DomainKFold, SourceOnly, is_unlabelled, split_domains, stack_domains


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("shape", [(3,), (4, 5), (4, 5, 3)])
def test_arrays_and_images_come_back_as_they_went_in(dtype, shape):
    rng = np.random.default_rng(0)
    source, target = (rng.integers(255, size=(n, *shape)).astype(dtype) for n in (4, 7))
    X, y, sample_domain = stack_domains(source, target)
    assert y is None
    assert X.dtype == dtype
    assert sample_domain.dtype == np.int64
    np.testing.assert_array_equal(sample_domain, [1] * 4 + [-2] * 7)
    order = rng.permutation(11)
    back = split_domains(X[order], sample_domain[order])
    for part, whole in zip(back, (source, target), strict=True):
        assert sorted(part.tolist()) == sorted(whole.tolist())


def test_memmaps(tmp_path):
    for name, n_rows in {"a": 3, "b": 2}.items():
        np.save(tmp_path / f"{name}.npy", np.full((n_rows, 2), n_rows, dtype=np.float32))
    X, _, sample_domain = stack_domains(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "ab"))
    np.testing.assert_array_equal(X[:, 0], [3, 3, 3, 2, 2])
    assert X.dtype == np.float32
    np.save(tmp_path / "X.npy", X)
    assert len(split_domains(np.load(tmp_path / "X.npy", mmap_mode="r"), sample_domain)[1]) == 2


@pytest.mark.parametrize("package", [pd, pl])
def test_frames_stay_frames(package):
    source = package.DataFrame({"a": [1.0, 2.0], "b": [3, 4]})
    target = package.DataFrame({"a": [5.0], "b": [0.5]})
    X, y, sample_domain = stack_domains(source, target, y_target=[3])
    assert isinstance(X, package.DataFrame)
    assert list(X.columns) == ["a", "b"]
    np.testing.assert_array_equal(X.to_numpy(), [[1, 3], [2, 4], [5, 0.5]])
    np.testing.assert_array_equal(y, [-1, -1, 3])
    X_source, X_target, y_source, y_target = split_domains(X, sample_domain, y)
    assert isinstance(X_source, package.DataFrame)
    assert X_source.shape == (2, 2) and X_target.shape == (1, 2)
    assert (y_source.tolist(), y_target.tolist()) == ([-1, -1], [3])
    with pytest.raises(ValueError, match=r"columns \['a', 'b'\] and X_target has \['b', 'a'\]"):
        stack_domains(source, target[["b", "a"]])
    with pytest.raises(TypeError, match="both of one kind"):
        stack_domains(source, target.to_numpy())


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, np.uint64])
def test_missing_labels_are_minus_one(dtype):
    y = stack_domains(np.zeros((2, 1)), np.ones((3, 1)), y_source=np.array([4, 200 % 128], dtype=dtype))[1]
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, [4, 72, -1, -1, -1])


def test_labels_are_never_turned_into_text():
    X, Z = np.zeros((2, 1)), np.ones((1, 1))
    y = stack_domains(X, Z, ["cat", "dog"], ["dog"])[1]
    np.testing.assert_array_equal(y, ["cat", "dog", "dog"])
    dates = np.array(["2024-01-01", "2025-01-01"], dtype="datetime64[D]")
    for labels in ([True, False], dates, np.array(["cat", 3], dtype=object)):
        with pytest.raises(ValueError, match=r"only integers, strings and floats .* Pass y_target too"):
            stack_domains(X, Z, labels)
        with pytest.raises(ValueError, match="Pass y_source too, or integer labels"):
            stack_domains(Z, X, None, labels)
    with pytest.raises(ValueError, match="numbers in both or in neither"):
        stack_domains(X, Z, ["cat", "dog"], [-1])


STRINGS = {
    "list": ["cat", "dog"],
    "array": np.array(["cat", "dog"]),
    "object": np.array(["cat", "dog"], dtype=object),
    "pandas": pd.Series(["cat", "dog"]),
    "polars": pl.Series(["cat", "dog"]),
}


@pytest.mark.parametrize("kind", STRINGS)
def test_missing_strings_are_minus_one_too(kind):
    X, Z = np.zeros((2, 1)), np.ones((1, 1))
    y = stack_domains(X, Z, STRINGS[kind])[1]
    assert (y.dtype, y.tolist()) == (np.dtype(object), ["cat", "dog", -1])
    y = stack_domains(Z, X, None, STRINGS[kind])[1]
    assert (y.dtype, y.tolist()) == (np.dtype(object), [-1, "cat", "dog"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_missing_values_are_nan(dtype):
    y = stack_domains(np.zeros((2, 1)), np.ones((1, 1)), np.array([0.5, -1.0], dtype=dtype))[1]
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, [0.5, -1.0, np.nan])


@pytest.mark.parametrize(
    "y",
    [
        [0, -1, 1],
        [0.0, np.nan, 1.0],
        [0.0, -1.0, 1.0],
        ["a", None, "b"],
        ["a", -1, "b"],  # in NumPy a column of text
        np.array(["a", -1, "b"], dtype=object),
        np.array(["a", np.nan, "b"], dtype=object),
        pd.Series(["a", None, "b"]),
        pd.Series(["a", pd.NA, "b"], dtype="string"),
        pd.Series([0, pd.NA, 1], dtype="Int64"),
        pl.Series(["a", None, "b"]),
        pl.Series([0, None, 1]),
        [[0.0, 1.0], [np.nan, 1.0], [1.0, 1.0]],
    ],
)
def test_placeholders(y):
    assert is_unlabelled(y).tolist() == [False, True, False]


def test_what_is_no_placeholder():
    assert not is_unlabelled([True, False]).any()
    assert not is_unlabelled(["", "none", "nan"]).any()
    assert is_unlabelled([-1.0, np.nan], marks=()).tolist() == [False, True]


def test_bad_stacks():
    X = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"shape \(2,\) and X_target of \(3,\)"):
        stack_domains(X, np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"X_target has the shape \(3,\)"):
        stack_domains(X, np.zeros(3))
    with pytest.raises(ValueError, match="X_target has no rows"):
        stack_domains(X, X[:0])
    with pytest.raises(ValueError, match=r"y_source has the shape \(3, 1\)"):
        stack_domains(X, X, y_source=np.zeros((3, 1), dtype=int))
    with pytest.raises(ValueError, match="numbers in both"):
        stack_domains(X, np.full((3, 2), "a"))
    with pytest.raises(TypeError, match="X_target is sparse"):
        stack_domains(X, csr_matrix(X))


@pytest.mark.parametrize(
    ("sample_domain", "message"),
    [
        ([1, -1], r"shape \(2,\) and X has 3 rows"),
        ([[1], [-1], [1]], r"shape \(3, 1\)"),
        ([1, np.nan, -1], "NaN"),
        ([1, None, -1], "NaN|dtype object"),
        (["source", "target", "source"], "expected numbers, >= 0 for the source"),
        ([True, False, True], "boolean.*pass np.where"),
        ([1, 0, 2], r"no target rows: its values are \[0.0, 1.0, 2.0\]. Expected >= 0 for the source"),
        ([-1, -1, -2], "no source rows"),
    ],
)
def test_bad_sample_domain(sample_domain, message):
    with pytest.raises(ValueError, match=message):
        split_domains(np.zeros((3, 1)), sample_domain)
    with pytest.raises(ValueError, match=message):
        DomainKFold(2).split(np.zeros((3, 1)), sample_domain=sample_domain)


def test_sample_domain_of_other_types():
    X = np.arange(3.0)[:, None]
    for sample_domain in ([0, -1, 1], (0.5, -0.5, 7), pd.Series([1, -2, 1]), pl.Series([1, -2, 1])):
        assert split_domains(X, sample_domain)[1] == [[1.0]]
    assert split_domains(X, pd.Series([1, -2, 1], dtype="Int64"))[1] == [[1.0]]
    assert split_domains([[0.0], [1.0]], [1, -2], ["a", "b"])[2:] == (["a"], ["b"])
    with pytest.raises(ValueError, match="y has 2 entries and X has 3 rows"):
        split_domains(X, [1, -2, 1], [0, 1])


def test_every_fold_has_both_domains():
    sample_domain = np.r_[np.ones(60), np.full(10, -2)]
    folds = list(DomainKFold(5, shuffle=True, random_state=0).split(np.zeros((70, 1)), groups=sample_domain))
    assert len(folds) == DomainKFold(5).get_n_splits() == 5
    for train, test in folds:
        assert ((sample_domain[test] > 0).sum(), (sample_domain[test] < 0).sum()) == (12, 2)
        assert sorted([*train, *test]) == list(range(70))
    again = DomainKFold(5, shuffle=True, random_state=0).split(np.zeros((70, 1)), sample_domain=sample_domain)
    for (_, test), (_, test_again) in zip(folds, again, strict=True):
        np.testing.assert_array_equal(test, test_again)
    assert repr(DomainKFold(3)) == "DomainKFold(n_splits=3, random_state=None, shuffle=False)"


def test_too_few_rows_for_the_folds():
    with pytest.raises(ValueError, match="at least 5 rows of each domain; got 8 of the source and 2 of"):
        DomainKFold().split(np.zeros((10, 1)), sample_domain=[1] * 8 + [-2] * 2)
    with pytest.raises(ValueError, match="DomainKFold splits by domain and got no sample_domain"):
        DomainKFold().split(np.zeros((10, 1)))


def test_the_splitter_gets_sample_domain_by_routing(routing):
    X, y, sample_domain = shifted_domains()
    search = GridSearchCV(
        SourceOnly(KNeighborsClassifier()),
        {"estimator__n_neighbors": [1, 3]},
        cv=DomainKFold(3),
        error_score="raise",
    ).fit(X, y, sample_domain=sample_domain)
    assert search.best_estimator_.n_features_in_ == 2
    nested = cross_validate(
        search, X, y, cv=DomainKFold(3), params={"sample_domain": sample_domain}, error_score="raise"
    )
    assert len(nested["test_score"]) == 3


def test_the_splitter_takes_groups_without_routing():
    X, y, sample_domain = shifted_domains()
    scores = cross_val_score(KNeighborsClassifier(), X, y, groups=sample_domain, cv=DomainKFold(3))
    assert len(scores) == 3
    search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3]}, cv=DomainKFold(3))
    assert len(search.fit(X, y, groups=sample_domain).predict(X)) == len(X)


def test_source_only_never_sees_the_targets_labels():
    X, y, sample_domain = shifted_domains()
    masked = np.where(sample_domain < 0, -1, y)
    model = SourceOnly(LogisticRegression()).fit(X, masked, sample_domain=sample_domain)
    expected = LogisticRegression().fit(X[sample_domain > 0], y[sample_domain > 0])
    np.testing.assert_array_equal(model.classes_, [0, 1])
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))
    np.testing.assert_array_equal(model.decision_function(X), expected.decision_function(X))
    assert model.score(X, y) == expected.score(X, y)
    assert model.score(X, y, sample_weight=y) == expected.score(X, y, sample_weight=y)
    everything = SourceOnly(LogisticRegression()).fit(X, y)
    np.testing.assert_array_equal(everything.predict(X), LogisticRegression().fit(X, y).predict(X))


@pytest.mark.parametrize("package", [pd, pl])
def test_source_only_with_frames(package):
    X, y, sample_domain = shifted_domains()
    frame = package.DataFrame({"a": X[:, 0], "b": X[:, 1]})
    model = SourceOnly(KNeighborsClassifier(1)).fit(frame, package.Series(y), sample_domain=sample_domain)
    assert list(model.feature_names_in_) == ["a", "b"]
    is_source = sample_domain > 0
    np.testing.assert_array_equal(model.predict(frame)[is_source], y[is_source])


def test_source_only_is_what_it_holds():
    assert is_classifier(SourceOnly(KNeighborsClassifier()))
    assert is_regressor(SourceOnly(LinearRegression()))
    assert not hasattr(SourceOnly(LinearSVC()), "predict_proba")
    assert hasattr(SourceOnly(LinearSVC()), "decision_function")
    assert not hasattr(SourceOnly(LinearRegression()).fit([[0.0], [1.0]], [0.0, 1.0]), "classes_")
    model = SourceOnly(LinearRegression()).fit(
        [[0.0], [1.0], [9.0]], [0.0, 1.0, 5.0], sample_domain=[1, 1, -2]
    )
    assert pickle.loads(pickle.dumps(model)).predict([[2.0]]) == pytest.approx(2.0)
    assert clone(model).get_params()["estimator__fit_intercept"]


def test_source_only_bad_input():
    X, y = np.zeros((3, 1)), [0, 1, 0]
    with pytest.raises(ValueError, match="no source rows"):
        SourceOnly(KNeighborsClassifier()).fit(X, y, sample_domain=[-1, -1, -1])
    with pytest.raises(ValueError, match="y has 2 entries"):
        SourceOnly(KNeighborsClassifier()).fit(X, y[:2], sample_domain=[1, 1, -1])


@pytest.mark.parametrize("enabled", [False, True])
def test_fit_parameters_reach_the_estimator_row_by_row(enabled):
    X, y, sample_domain = shifted_domains()
    weight, rows = np.arange(1.0, len(X) + 1), sample_domain > 0
    expected = LogisticRegression().fit(X[rows], y[rows], sample_weight=weight[rows])
    with sklearn.config_context(enable_metadata_routing=enabled):
        inner = LogisticRegression()
        inner = inner.set_fit_request(sample_weight=True) if enabled else inner
        model = SourceOnly(inner).fit(X, y, sample_domain=sample_domain, sample_weight=weight)
    np.testing.assert_array_equal(model.estimator_.coef_, expected.coef_)


def test_a_parameter_that_was_not_requested_is_refused(routing):
    X, y, _ = shifted_domains()
    with pytest.raises(ValueError, match="sample_weight"):
        SourceOnly(LogisticRegression()).fit(X, y, sample_weight=np.ones(len(X)))


@pytest.mark.parametrize("inner", [LogisticRegression(), LinearRegression()])
def test_check_estimator(inner):
    check_estimator(SourceOnly(inner), on_skip=None)


def test_domain_adaptation_in_a_pipeline(routing):
    X, y, sample_domain = shifted_domains(200, 120)
    masked, is_target = np.where(sample_domain < 0, -1, y), sample_domain < 0
    pipeline = make_pipeline(StandardScaler(), MeanShift(), SourceOnly(KNeighborsClassifier(1)))
    pipeline.fit(X, masked, sample_domain=sample_domain)
    np.testing.assert_array_equal(pipeline.classes_, [0, 1])
    marks = np.full(is_target.sum(), -1)
    assert np.mean(pipeline.predict(X[is_target], sample_domain=marks) == y[is_target]) > 0.95
    assert pipeline.score(X[is_target], y[is_target], sample_domain=marks) > 0.95
    # Without the mark the transport takes them for source rows and moves them once more.
    assert np.mean(pipeline.predict(X[is_target]) == y[is_target]) < 0.8


SIDES = np.array(["left", "right"])


def half_labelled(kind):
    """Two classes whose target has moved, labels of one kind for the source alone, and all labels."""
    X, codes, sample_domain = shifted_domains(120, 60)
    y = {
        "integers": lambda: np.where(sample_domain < 0, -1, codes),
        "strings": lambda: np.where(sample_domain < 0, -1, SIDES[codes].astype(object)),
        "pandas": lambda: pd.Series(np.where(sample_domain < 0, None, SIDES[codes].astype(object))),
    }[kind]()
    names = np.arange(2) if kind == "integers" else SIDES
    return X, y, sample_domain, names[codes]


KINDS = ["integers", "strings", "pandas"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("package", [None, pd, pl])
def test_a_transport_moves_the_source_and_nothing_else(kind, package):
    X, y, sample_domain, truth = half_labelled(kind)
    is_source = sample_domain > 0
    frame = X if package is None else package.DataFrame({"a": X[:, 0], "b": X[:, 1]})
    model = SourceOnly(KNeighborsClassifier(1), transport=MeanShift())
    model.fit(frame, y, sample_domain=sample_domain)
    moved = X[is_source] + X[~is_source].mean(axis=0) - X[is_source].mean(axis=0)
    expected = KNeighborsClassifier(1).fit(moved, truth[is_source])
    np.testing.assert_array_equal(model.predict(frame), expected.predict(X))
    np.testing.assert_array_equal(model.predict_proba(frame), expected.predict_proba(X))
    assert model.classes_.tolist() == np.unique(truth).tolist()
    assert model.score(frame, truth, sample_domain=sample_domain) == expected.score(
        X[~is_source], truth[~is_source]
    )


def test_without_the_transport_it_fails():
    X, y, sample_domain, truth = half_labelled("integers")
    rows = sample_domain < 0
    scores = [
        SourceOnly(KNeighborsClassifier(1), transport=transport)
        .fit(X, y, sample_domain=sample_domain)
        .score(X[rows], truth[rows])
        for transport in (None, MeanShift())
    ]
    assert scores[0] < 0.7 < 0.95 < scores[1]


@pytest.mark.parametrize("kind", KINDS)
def test_only_labelled_rows_are_scored(kind):
    X, y, sample_domain, truth = half_labelled(kind)
    is_source = sample_domain > 0
    model = SourceOnly(KNeighborsClassifier(3), transport=MeanShift()).fit(X, y, sample_domain=sample_domain)
    inner = model.estimator_
    # The target has no labels: the source on its new place.
    moved = model.transport_.transform(X[is_source])
    assert model.score(X, y, sample_domain=sample_domain) == inner.score(moved, truth[is_source]) > 0.9
    # A few rows of the target have labels, wrong ones: they are all that counts.
    some = np.array(y, dtype=object)
    few = np.flatnonzero(~is_source)[:5]
    some[few] = truth[few][::-1]
    expected = inner.score(X[few], truth[few][::-1])
    assert model.score(X, some, sample_domain=sample_domain) == expected < 0.9
    rows = np.flatnonzero(~is_source)
    assert model.score(X[rows], truth[rows]) == inner.score(X[rows], truth[rows])
    assert model.score(X[rows], some[rows], sample_domain=sample_domain[rows]) == expected
    weight = np.arange(len(X), dtype=float)
    assert model.score(X, some, weight, sample_domain=sample_domain) == inner.score(
        X[few], truth[few][::-1], sample_weight=weight[few]
    )
    with pytest.raises(ValueError, match="None of the 60 rows has a label in y"):
        model.score(X[rows], np.array(y, dtype=object)[rows])


def test_a_score_without_domains_says_what_it_takes_the_rows_for():
    X, y, sample_domain, truth = half_labelled("integers")
    model = SourceOnly(KNeighborsClassifier(3), transport=MeanShift()).fit(X, y, sample_domain=sample_domain)
    with pytest.warns(UserWarning, match="are not moved. Pass sample_domain") as caught:
        score = model.score(X, y)
    assert caught[0].filename == __file__
    is_source = sample_domain > 0
    assert score == model.estimator_.score(X[is_source], truth[is_source])
    # Behind a transport in a pipeline they have been moved.
    behind = SourceOnly(KNeighborsClassifier(3)).fit(X, y, sample_domain=sample_domain)
    assert behind.score(X, y) == behind.estimator_.score(X[is_source], truth[is_source])


def test_the_placeholder_of_a_regressor_is_nan():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(40, 1))
    # On average -1, which is a value here.
    values = 2 * source[:, 0] - 1
    X, y, sample_domain = stack_domains(source, source[:30] + 7, values)
    model = SourceOnly(LinearRegression(), transport=MeanShift()).fit(X, y, sample_domain=sample_domain)
    assert model.score(X, y, sample_domain=sample_domain) == pytest.approx(1)
    shift = model.transport_.shift_[0]
    assert model.predict([[shift + 1.0]]) == pytest.approx(1)
    y[-3:] = [-1.0, -1.0, 0.5]
    expected = model.estimator_.score(X[-3:], [-1.0, -1.0, 0.5])
    assert model.score(X, y, sample_domain=sample_domain) == expected
    with pytest.raises(ValueError, match="1 rows of the source have no label"):
        model.fit(X, np.r_[np.nan, y[1:]], sample_domain=sample_domain)


@pytest.mark.parametrize("mode", ["ignore", "condition", "couple"])
def test_the_labels_a_transport_is_given(mode):
    class Recorder(MeanShift):
        def fit(self, X, y=None, *, sample_domain=None):
            self.fitted_with_ = y
            return super().fit(X, sample_domain=sample_domain)

    X, y, sample_domain, _ = half_labelled("strings")
    model = SourceOnly(KNeighborsClassifier(1), transport=Recorder(label_mode=mode))
    recorder = model.fit(X, y, sample_domain=sample_domain).transport_
    assert recorder.fitted_with_ is (None if mode == "ignore" else y)
    if mode == "condition":
        assert recorder.labels_seen_.tolist() == y[sample_domain > 0].tolist()
    else:
        assert recorder.labels_seen_ is None


def test_a_class_named_minus_one():
    X, codes, sample_domain = shifted_domains()
    y = 2 * codes - 1
    model = SourceOnly(LogisticRegression()).fit(X, y)
    assert model.score(X, y) == LogisticRegression().fit(X, y).score(X, y)
    with pytest.raises(ValueError, match=r"rows of the source have no label .* give it another name"):
        model.fit(X, y, sample_domain=sample_domain)


def test_transports_that_cannot_be():
    X, y, sample_domain = shifted_domains()
    for transport, message in {
        make_pipeline(StandardScaler(), MeanShift()): "make the steps before it steps before SourceOnly",
        KNeighborsClassifier(): "expected None or an estimator with fit and transform",
    }.items():
        with pytest.raises(TypeError, match=message):
            SourceOnly(KNeighborsClassifier(), transport=transport).fit(X, y, sample_domain=sample_domain)
    model = SourceOnly(KNeighborsClassifier(), transport=MeanShift())
    with pytest.raises(ValueError, match="transport needs the rows of both samples"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="no target rows"):
        model.fit(X, y, sample_domain=np.ones(len(X)))
    model.fit(X, y, sample_domain=sample_domain)
    with pytest.raises(ValueError, match="y has 2 entries and X has 48 rows"):
        model.score(X, y[:2])


def test_a_refit_forgets_the_transport():
    X, y, sample_domain = shifted_domains()
    model = SourceOnly(KNeighborsClassifier(1), transport=MeanShift()).fit(X, y, sample_domain=sample_domain)
    model.set_params(transport=None).fit(X, y, sample_domain=sample_domain)
    assert model.transport_ is None
    np.testing.assert_array_equal(model.predict(X[sample_domain > 0]), y[sample_domain > 0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_over_the_transport_and_the_classifier(routing, kind):
    X, y, sample_domain, truth = half_labelled(kind)
    model = SourceOnly(KNeighborsClassifier(), transport=MeanShift())
    grid = {"transport__part": [0.0, 1.0], "estimator__n_neighbors": [1, 3]}
    search = GridSearchCV(model, grid, cv=DomainKFold(3), error_score="raise")
    search.fit(X, y, sample_domain=sample_domain)
    # Placeholders would count as errors: a third of the rows.
    assert search.best_score_ > 0.95
    # The moved source cannot tell the parts apart: some labels of the target do.
    search.fit(X, truth, sample_domain=sample_domain)
    assert search.best_params_["transport__part"] == 1.0
    rows = sample_domain < 0
    assert np.mean(search.predict(X[rows]) == truth[rows]) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaler_before_transport_and_classifier(routing, kind):
    X, y, sample_domain, truth = half_labelled(kind)
    rows = sample_domain < 0
    pipeline = make_pipeline(StandardScaler(), SourceOnly(KNeighborsClassifier(1), transport=MeanShift()))
    pipeline.fit(X, y, sample_domain=sample_domain)
    assert np.mean(pipeline.predict(X[rows]) == truth[rows]) > 0.95
    assert pipeline.score(X[rows], truth[rows]) > 0.95
    moved = pipeline[0].transform(X[~rows]) + pipeline[-1].transport_.shift_
    expected = pipeline[-1].estimator_.score(moved, truth[~rows])
    assert pipeline.score(X, y, sample_domain=sample_domain) == expected


def test_a_scaler_before_it_without_routing():
    X, y, sample_domain, truth = half_labelled("strings")
    rows = sample_domain < 0
    pipeline = make_pipeline(StandardScaler(), SourceOnly(KNeighborsClassifier(1), transport=MeanShift()))
    pipeline.fit(X, y, sourceonly__sample_domain=sample_domain)
    assert pipeline.score(X[rows], truth[rows]) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_over_a_pipeline_with_a_transport_scores_labelled_rows(routing, kind):
    X, y, sample_domain, _ = half_labelled(kind)
    pipeline = make_pipeline(MeanShift(), SourceOnly(KNeighborsClassifier(1)))
    search = GridSearchCV(pipeline, {"meanshift__part": [1.0]}, cv=DomainKFold(3), error_score="raise")
    assert search.fit(X, y, sample_domain=sample_domain).best_score_ > 0.95


def test_domain_adaptation_fold_by_fold(routing):
    X, y, sample_domain = shifted_domains(120, 60)
    masked = np.where(sample_domain < 0, -1, y)
    pipeline = make_pipeline(MeanShift(), SourceOnly(KNeighborsClassifier(1)))
    for train, test in DomainKFold(3).split(X, sample_domain=sample_domain):
        pipeline.fit(X[train], masked[train], sample_domain=sample_domain[train])
        assert pipeline.score(X[test], y[test], sample_domain=sample_domain[test]) > 0.95
