"""Every bad input is an error that says what was expected, and allowed ones work."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.exceptions import NotFittedError

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.metrics import energy_distance

GOOD = np.random.default_rng(0).normal(size=(30, 2))


def small(**options):
    return SinkhornFlowTransport(
        n_flows=1, flow_batch_size=16, max_iter=2, hidden_layer_sizes=(8,), random_state=0
    ).set_params(**options)


@pytest.fixture(scope="module")
def fitted():
    return small().fit(GOOD, GOOD + 1)


def with_entry(value):
    bad = GOOD.copy()
    bad[3, 1] = value
    return bad


BAD_ARRAYS = {
    "NaN": (with_entry(np.nan), ValueError, "NaN"),
    "infinite": (with_entry(np.inf), ValueError, "infinity"),
    "empty": (np.empty((0, 2)), ValueError, "0 sample"),
    "no features": (np.empty((30, 0)), ValueError, "0 feature|0 features"),
    "3-D": (GOOD[..., None], ValueError, "samples of shape"),
    "complex": (GOOD + 1j, ValueError, "[Cc]omplex"),
    "strings": (GOOD.astype(str).astype(object) + "x", ValueError, "convert"),
    "objects": (np.full((30, 2), object()), TypeError, "float"),
    "sparse": (scipy.sparse.csr_array(GOOD), TypeError, "[Ss]parse"),
    "categories": (np.array([["x", "y"]] * 30), ValueError, "convert"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
@pytest.mark.parametrize("place", ["X", "y", "transform", "score"])
def test_bad_arrays(fitted, name, place):
    bad, error, message = BAD_ARRAYS[name]
    with pytest.raises(error, match=message):
        if place == "X":
            small().fit(bad, GOOD)
        elif place == "y":
            small().fit(GOOD, bad)
        elif place == "transform":
            fitted.transform(bad)
        else:
            fitted.score(GOOD, bad)


def test_one_row():
    for arguments in [(GOOD[:1], GOOD), (GOOD, GOOD[:1]), (GOOD[:1],)]:
        with pytest.raises(ValueError, match="minimum of 2"):
            small().fit(*arguments)


def test_one_dimension(fitted):
    for call in (small().fit, fitted.transform, fitted.inverse_transform):
        with pytest.raises(ValueError, match="Expected 2D array, got 1D"):
            call(GOOD[:, 0])


def test_labels_of_another_length():
    with pytest.raises(ValueError, match="reshape"):
        small().fit(GOOD[:, :1], GOOD[:20, 0])


def test_other_features(fitted):
    with pytest.raises(ValueError, match="y has 3 features and X has 2"):
        small().fit(GOOD, np.ones((30, 3)))
    with pytest.raises(ValueError, match="y has 3 features and X has 2"):
        fitted.score(GOOD, np.ones((30, 3)))
    for call in (fitted.transform, fitted.inverse_transform, lambda X: fitted.velocity(X, 0.5)):
        with pytest.raises(ValueError, match="X has 3 features"):
            call(np.ones((4, 3)))


def test_unfitted():
    est = small()
    for call in (
        lambda: est.transform(GOOD),
        lambda: est.inverse_transform(GOOD),
        lambda: est.integrate(GOOD),
        lambda: est.velocity(GOOD, 0.5),
        lambda: est.sample(3),
        lambda: est.score(GOOD, GOOD),
        lambda: est.loss_curve_,
        lambda: est.n_iter_,
        lambda: est.n_features_in_,
    ):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()
    assert not hasattr(est, "loss_curve_")


@pytest.mark.parametrize(
    "options",
    [
        {"blur": 0},
        {"blur": -1.0},
        {"blur": "small"},
        {"blur": (0.1, -0.1)},
        {"blur": (0.1, 0.2, 0.3)},
        {"blur": np.nan},
        {"blur": np.inf},
        {"n_steps": 0},
        {"n_steps": 2.5},
        {"step_size": 0},
        {"step_size": 1.5},
        {"step_size": "constant"},
        {"step_size": (0.5, 0.5)},
        {"n_flows": 0},
        {"flow_batch_size": 1},
        {"sinkhorn_tol": 0},
        {"solver": "dopri5"},
        {"network": "mlp"},
        {"hidden_layer_sizes": 5},
        {"hidden_layer_sizes": (0,)},
        {"hidden_layer_sizes": (2.5,)},
        {"learning_rate": 0},
        {"learning_rate": np.inf},
        {"batch_size": 0},
        {"max_iter": -1},
        {"early_stopping": "yes"},
        {"validation_fraction": 1.0},
        {"n_iter_no_change": 0},
        {"standardize": "yes"},
        {"n_jobs": "all"},
        {"random_state": "seed"},
        {"device": "tpu"},
        {"device": "cuda:99"},
        {"device": 3},
    ],
)
def test_parameters_out_of_range(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        small(**options).fit(GOOD, GOOD)


def test_arguments_out_of_range(fitted):
    for n_samples in (0, -1):
        with pytest.raises(ValueError, match="n_samples"):
            fitted.sample(n_samples)
    with pytest.raises(TypeError, match="n_samples"):
        fitted.sample(2.5)
    with pytest.raises(ValueError, match="t_start must be"):
        fitted.integrate(GOOD, t_start=-0.1)
    with pytest.raises(ValueError, match="t_end must be"):
        fitted.integrate(GOOD, t_end=float("nan"))
    with pytest.raises(ValueError, match="n_steps"):
        fitted.integrate(GOOD, n_steps=0)
    with pytest.raises(ValueError, match="solver='dopri5'"):
        fitted.integrate(GOOD, solver="dopri5")
    for t in (1.5, np.nan, [0.1, 0.2], "now"):
        with pytest.raises(ValueError, match="t must be"):
            fitted.velocity(GOOD, t)


def test_a_target_is_asked_for(fitted):
    with pytest.raises(ValueError, match="Pass the target sample as y, or both samples in X"):
        fitted.score(GOOD)


@pytest.mark.filterwarnings("ignore:1 of 2 rows of X lie far")
def test_an_answer_that_is_not_finite_is_an_error(fitted):
    with pytest.raises(ValueError, match="not finite for 1 of 2"):
        fitted.transform(np.array([[0, 0], [3e38, -3e38]], dtype=np.float32))


@pytest.mark.filterwarnings("ignore:All target rows are equal")
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("column", ["varies", "constant in one", "constant in both", "all constant"])
def test_allowed_oddities(scale, dtype, column):
    source, target = (scale * np.array([GOOD, GOOD + 0.1])).astype(dtype)
    if column == "constant in one":
        source[:, 0] = scale * 0.1
    elif column == "constant in both":
        source[:, 0] = target[:, 0] = scale * 0.1
    elif column == "all constant":
        target[:] = scale * 0.1
    source[5:20] = source[4]
    for moved in (
        small().fit(source, target).transform(source),
        small().fit(target).sample(5),
    ):
        assert np.isfinite(moved).all()
        assert np.abs(moved).max() < 100 * scale
        if column == "constant in both":
            np.testing.assert_allclose(moved[:, 0], scale * 0.1, rtol=1e-6)


@pytest.fixture
def est():
    return SinkhornFlowTransport(n_flows=1, flow_batch_size=8, max_iter=2, hidden_layer_sizes=(4,))


def test_columns_that_are_no_numbers_are_named(est):
    frame = pd.DataFrame(
        {"a": np.arange(5.0), "city": list("vwxyz"), "day": pd.date_range("2024", periods=5)}
    )
    with pytest.raises((TypeError, ValueError), match=r"columns \['city', 'day'\] of X.* encode dates"):
        est.fit(frame)
    gaps = pd.DataFrame({"a": np.arange(5.0), "b": [1.0, np.nan, 2, 3, 4]})
    with pytest.raises(ValueError, match=r"(?s)contains NaN.*columns \['b'\] of X.*impute"):
        est.fit(gaps)
    with pytest.raises(ValueError, match=r"(?s)columns \[1\] of y \(the target\)"):
        est.fit(np.zeros((5, 2)), np.array([[0.0, 1], [1, np.inf]]))


def test_columns_beyond_those_of_a_frame_are_numbered(est):
    with pytest.raises(ValueError, match=r"the columns \[2\] of y \(the target\)"):
        est.fit(pd.DataFrame({"a": np.arange(5.0)}), np.array([[0.0, 1, 2], [0, 1, np.inf]]))


def test_masked_arrays_are_refused(est):
    X = np.ma.masked_greater(np.arange(10.0).reshape(5, 2), 8)
    with pytest.raises(ValueError, match="X is a masked array"):
        est.fit(X)


def test_labels_in_a_column_are_told_from_a_target(est):
    X = np.arange(10.0).reshape(5, 2)
    with pytest.raises(ValueError, match=r"y has the shape \(5, 1\).* Pass y.ravel\(\)"):
        est.set_params(label_mode="condition").fit(X, np.array([[0], [1], [0], [1], [0]]))


def test_a_target_that_looks_like_labels_is_warned_about(est):
    x = np.arange(20.0).reshape(-1, 1)
    with pytest.warns(UserWarning, match="is the target, pass y.reshape") as record:
        est.set_params(max_iter=1).fit(x, np.linspace(100.5, 103.2, 20))
    assert record[0].filename == __file__
    est.fit(x, np.arange(20) % 2)


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_what_goes_in_as_a_frame_comes_out_as_one(est, container):
    package = pytest.importorskip(container)
    data = {"age": np.arange(20.0), "pay": np.arange(20.0) ** 2}
    X = pd.DataFrame(data, index=np.arange(5, 25)) if container == "pandas" else package.DataFrame(data)
    est.set_params(max_iter=1).set_output(transform=container).fit(X)
    for answer in (est.transform(X), est.inverse_transform(X), est.integrate(X, t_end=0.5), est.sample(3)):
        assert isinstance(answer, package.DataFrame)
        assert list(answer.columns) == ["age", "pay"]
    assert est.integrate(X, return_path=True).shape[1:] == (20, 2)
    if container == "pandas":
        assert list(est.inverse_transform(X).index) == list(X.index)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([[1.0, 2.0], [3.0]], "X is a list of rows of different lengths"),
        ({"a": [1.0, 2.0]}, "about X, a dict"),
        (None, "X is None"),
        (iter([[1.0], [2.0]]), "X is an iterator"),
        (np.array([(1, 2.0), (3, 4.0)], dtype="i4,f8"), "about X, a ndarray"),
        (np.array([[np.inf], [-np.inf]]), "X contains infinity"),
        (np.array([[1.7e308], [1.6e308]]), "X has values, or X and y have scales"),
    ],
    ids=["lengths", "dictionary", "nothing", "iterator", "structured", "both infinities", "no mean"],
)
def test_an_error_names_the_array(est, X, message):
    with pytest.raises((TypeError, ValueError), match=message):
        est.fit(X)


@pytest.mark.parametrize("y", [3, {"a": 1}, [[1.0], [1.0, 2.0]]])
def test_an_error_names_the_target(est, y):
    with pytest.raises((TypeError, ValueError), match=r"It is about y, a"):
        est.fit(GOOD, y)


def test_nan_among_ignored_labels_is_named(est):
    with pytest.raises(ValueError, match="Input y contains NaN"):
        est.fit(GOOD[:, :1], np.full(30, np.nan))


def test_labels_of_any_type_are_ignored(est):
    assert est.fit(GOOD, np.zeros(30, dtype="i4,f8")).from_noise_


def test_domains_of_different_lengths(est):
    with pytest.raises(ValueError, match="sample_domain has rows of different lengths"):
        est.fit(GOOD, sample_domain=[[1], [1, 2]])


@pytest.mark.parametrize("mode", ["condition", "couple"])
def test_dates_are_no_classes(est, mode):
    with pytest.raises(ValueError, match="y has the dtype datetime64"):
        est.set_params(label_mode=mode).fit(GOOD, pd.date_range("2024", periods=30))


def test_categories_that_are_lists(est):
    frame = pd.DataFrame({"a": [[1], [1], [2]]})
    with pytest.raises(TypeError, match="that are no categories"):
        est.set_params(categorical_features=[0]).fit(frame)


def test_categories_that_are_tuples(est):
    frame = pd.DataFrame({"a": pd.Series([(1, 0), (1, 1), (1, 0)]).astype("category")})
    with pytest.raises(TypeError, match="categories that are sequences"):
        est.fit(frame)


def test_labels_of_different_lengths(est):
    est.set_params(label_mode="condition").fit(GOOD, np.arange(30) % 2)
    with pytest.raises(ValueError, match="labels cannot be read"):
        est.transform(GOOD[:2], labels=[[1], [1, 0]])


def test_dates_are_no_numbers_to_score(est):
    frame = pd.DataFrame({"a": pd.Series(pd.date_range("2024", periods=6).date, dtype=object)})
    est.set_params(categorical_features=["a"]).fit(frame)
    with pytest.raises(TypeError, match=r"It is about [Xy]"):
        est.score(frame)


def test_frames_of_two_libraries(est):
    polars = pytest.importorskip("polars")
    X = polars.DataFrame({"a": np.arange(20)})
    est.set_output(transform="polars").fit(X, pd.DataFrame({"a": np.arange(20)}))
    assert isinstance(est.sample(3), polars.DataFrame)


@pytest.mark.filterwarnings("ignore:All source rows are equal")
def test_rows_that_are_too_far_away(est):
    with pytest.raises(ValueError, match=r"standard deviations away.*frame='none'"):
        est.set_params(frame="none").fit(np.full((9, 2), 1e100), GOOD)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("ratio", [1e-20, 1e-50, 1e-90])
def test_a_target_that_is_next_to_a_point(est, ratio):
    est.set_params(frame="shift", standardize=False, early_stopping=False)
    assert np.isfinite(est.fit(GOOD, GOOD * ratio).transform(GOOD)).all()


@pytest.mark.filterwarnings("error::RuntimeWarning", "ignore:All target rows are equal")
def test_the_least_number_there_is(est):
    X = np.zeros((13, 2))
    X[3, 1] = 5e-324
    assert np.isfinite(est.set_params(standardize=False).fit(X).score(X))


def test_categorical_features_of_different_lengths(est):
    with pytest.raises(ValueError, match=r"categorical_features has"):
        est.set_params(categorical_features=[[0], [0, 1]]).fit(GOOD)


@pytest.mark.filterwarnings("ignore:X or y has 2 rows")
def test_two_rows_are_correlated_perfectly(est):
    assert np.isfinite(est.fit(GOOD[:2]).sample(5)).all()
    est.set_params(early_stopping=False)
    assert np.isfinite(est.fit(GOOD[:2]).sample(5)).all()


@pytest.mark.filterwarnings("error::RuntimeWarning", "ignore:The column")
@pytest.mark.parametrize("scale", [1e-290, 1e200, 1e300])
def test_squares_that_are_no_floats(est, scale):
    X = scale * np.random.default_rng(0).standard_cauchy(size=(40, 3)).clip(-50, 50)
    for options in ({}, {"standardize": False}):
        est.set_params(**options).fit(X, X + scale)
        assert np.isfinite(est.transform(X)).all()
        assert np.isfinite(est.score(X, X)) or scale > 1e200


@pytest.mark.filterwarnings("error::RuntimeWarning", "ignore:The column")
def test_a_linear_map_between_very_different_scales(est):
    """Its covariance has no meaning in float64: each feature is scaled by itself."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(10, 5)) * 10.0 ** np.array([-40, -20, 0, 20, 40])
    target = rng.normal(size=(12, 5))
    est.set_params(frame="linear", early_stopping=False).fit(source, target)
    assert np.abs(est.transform(source)).max() < 10


ADVICE = {
    "infinite": (np.inf, r"infinity.*\n.*columns \['b'\] of X: leave out the rows with infinite values"),
    "missing": (np.nan, r"columns \['b'\] of X: impute the missing values \(1 of 20\)"),
    "a word": ("n/a", r"columns \['b'\] of X: 1 of 20 values are no numbers, such as 'n/a': .*to_numeric"),
    "words": (["n/a"] * 11, r"columns \['b'\] of X: give categories a categorical dtype"),
    "commas": (["1,5"] * 11, r"columns \['b'\] of X: .*decimal commas, such as '1,5': .*decimal=','"),
    "commas and gaps": (["1,5", None], r"columns \['b'\] of X: .*decimal commas"),
    "gaps among text": (["1.5", None], r"columns \['b'\] of X: impute the missing values \(1 of 20\)"),
    "dates": (list(pd.date_range("2024", periods=20)), r"columns \['b'\] of X: encode dates as numbers"),
}


@pytest.mark.parametrize("case", ADVICE)
def test_what_to_do_about_a_column(case):
    value, message = ADVICE[case]
    y = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "b"])
    values = value if isinstance(value, list) else [value]
    X = y.assign(
        b=pd.Series(values + y["b"].tolist()[len(values) :], dtype=None if "dates" in case else object)
    )
    with pytest.raises((TypeError, ValueError), match=re.compile(message, re.DOTALL)) as raised:
        SinkhornFlowTransport(max_iter=2).fit(X, y)
    assert len(str(raised.value).splitlines()) == 2


def test_what_to_do_about_complex_numbers(est):
    with pytest.raises(
        ValueError, match=r"(?s)Complex data not supported\n.*columns \[0, 1, 2\] .* real and imaginary"
    ) as error:
        est.fit(np.column_stack([GOOD[:, 0] + 1j, GOOD]))
    assert len(str(error.value)) < 300


def test_columns_in_another_order_are_named(est):
    X = pd.DataFrame(GOOD, columns=["a", "b"])
    est.fit(X)
    for other in (X[["b", "a"]], X.assign(c=0.0)):
        names = re.escape(str(list(other)))
        expected = rf"(?s)feature.*has the columns {names}, and the fit had \['a', 'b'\]: pass these"
        with pytest.raises(ValueError, match=expected):
            est.transform(other)
    with pytest.raises(ValueError, match="feature names should match"):
        est.transform(X.rename(columns={"a": "c"}))


def test_a_single_row_is_too_few(est):
    with pytest.raises(ValueError, match=r"minimum of 2 .*\nIt is about X, which is too small"):
        est.fit(GOOD[:1])


@pytest.mark.parametrize("labels", [np.where(np.arange(30) < 3, np.nan, 1.0), [None] * 3 + ["a"] * 27])
def test_missing_labels_are_counted(est, labels):
    with pytest.raises(ValueError, match=r"3 of 30 labels are missing, .* Leave these rows out"):
        est.set_params(label_mode="condition").fit(GOOD, labels)


def test_distances_of_text_and_numbers():
    X = pd.DataFrame({"a": np.arange(20.0), "b": ["u", "v"] * 10})
    assert energy_distance(X, X.iloc[::-1]) < 0.1
    for other in (X.astype({"a": str}), X.astype({"b": "category"}).assign(b=1.0)):
        with pytest.raises(TypeError, match=r"The column '[ab]' holds text and numbers, .* in both samples"):
            energy_distance(X, other)
    with pytest.raises(ValueError, match=r"The column 'b' of Y has missing categories; expected one in each"):
        energy_distance(X, X.assign(b=["u", None] * 10))
