import functools
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.linalg
import sklearn
from mean_shift import MeanShift, shifted_domains
from scipy.spatial.distance import cdist
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_nsgf import SinkhornFlowTransport, metrics
from sklearn_nsgf.domains import DomainKFold, split_domains
from sklearn_nsgf.metrics import (
    classifier_two_sample_test,
    energy_distance,
    frechet_distance,
    make_transport_scorer,
    sinkhorn_divergence,
    sliced_wasserstein_distance,
    wasserstein_distance,
)

raw_scorer = functools.partial(make_transport_scorer, standardize=False)


def test_energy_distance_leaves_out_the_pairs_with_itself():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 3)), rng.normal(1, 2, size=(40, 3))
    within_x, within_y = (cdist(Z, Z)[~np.eye(len(Z), dtype=bool)].mean() for Z in (X, Y))
    assert energy_distance(X, Y) == pytest.approx(2 * cdist(X, Y).mean() - within_x - within_y)


def test_small_samples_that_lie_apart_are_told_apart():
    rng = np.random.default_rng(0)
    for n in (5, 6, 8, 20):
        X, Y = rng.normal(size=(n, 2)), rng.normal(100, 1, size=(n, 2))
        assert classifier_two_sample_test(X, Y) > 0.9


def test_energy_distance_is_unbiased():
    rng = np.random.default_rng(0)
    values = [energy_distance(*rng.normal(size=(2, 20, 2))) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20
    assert np.min(values) < 0


def test_energy_distance_of_many_rows_uses_the_same_ones_each_time():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(5000, 1)), rng.normal(size=(5000, 1))
    assert energy_distance(X, Y) == energy_distance(X, Y)
    assert abs(energy_distance(X, Y)) < 0.01


def test_energy_distance_draws_from_each_sample_anew(monkeypatch):
    """The same places in both would be pairs of rows that belong together."""
    compared = []
    monkeypatch.setattr(metrics, "ENERGY_MAX_ROWS", 100)
    monkeypatch.setattr(metrics, "_sum_of_distances", lambda *samples: compared.append(samples) or 1.0)
    X = np.arange(10_000.0)[:, None]
    energy_distance(X, X)
    X_drawn, Y_drawn = compared[0]
    assert len(np.unique(X_drawn)) == len(np.unique(Y_drawn)) == 100
    assert len(np.intersect1d(X_drawn, Y_drawn)) < 8


def test_wasserstein_distance_of_a_shift_is_its_length():
    X = np.random.default_rng(0).normal(size=(50, 2))
    assert wasserstein_distance(X, np.flip(X, 0) + np.array([3, 4])) == pytest.approx(5)
    assert wasserstein_distance(X[:1], X[:1]) == 0


def test_sinkhorn_divergence_of_a_shift_is_half_its_square():
    X = np.random.default_rng(0).normal(size=(50, 2))
    assert sinkhorn_divergence(X, np.flip(X, 0) + np.array([3, 4]), blur=0.5) == pytest.approx(12.5, rel=1e-3)


def test_a_sinkhorn_divergence_that_is_not_solved_is_warned_about():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 2)), rng.normal([8, 3], [0.5, 2], size=(200, 2))
    stays = MeanShift(part=0.0).fit(X, y)
    scorer = raw_scorer("sinkhorn_divergence", blur=0.003)
    message = r"marginal error of 0\.\d+, above 0.0001. Raise blur, which is 0.003"
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        divergence = sinkhorn_divergence(X, y, blur=0.003)
        assert scorer(stays, X, y) == -divergence
    assert [warning.filename for warning in caught] == [__file__, __file__]


ALL_METRICS = {
    "energy": energy_distance,
    "wasserstein": wasserstein_distance,
    "sliced": sliced_wasserstein_distance,
    "frechet": frechet_distance,
    "classifier": functools.partial(
        classifier_two_sample_test, classifier=ExtraTreesClassifier(10, min_samples_leaf=5, random_state=0)
    ),
    "sinkhorn": functools.partial(sinkhorn_divergence, blur=1.0),
}


@pytest.fixture(params=ALL_METRICS)
def any_metric(request):
    return ALL_METRICS[request.param]


def test_bad_input(any_metric):
    X = np.zeros((5, 2))
    with pytest.raises(ValueError, match="Y has 3"):
        any_metric(X, np.zeros((5, 3)))
    with pytest.raises(ValueError, match="NaN"):
        any_metric(X, np.full((5, 2), np.nan))


def one_wide_column(rng, n_rows):
    """In another order of the columns it would be another sample."""
    return rng.normal([0, 3], [1, 20], size=(n_rows, 2))


@pytest.mark.parametrize("package", [pd, pl])
def test_columns_are_matched_by_name(any_metric, package):
    rng = np.random.default_rng(0)
    X, Y = one_wide_column(rng, 40), one_wide_column(rng, 50)
    expected = any_metric(X, Y)
    assert any_metric(X, Y[:, ::-1]) > expected
    frame, other = (package.DataFrame({"a": Z[:, 0], "b": Z[:, 1]}) for Z in (X, Y))
    for swapped in (other[["b", "a"]], pd.DataFrame({"b": Y[:, 1], "a": Y[:, 0]})):
        assert any_metric(frame, swapped) == pytest.approx(expected)
    assert any_metric(frame, Y) == pytest.approx(expected)
    assert any_metric(X, other) == pytest.approx(expected)
    assert any_metric(X, other[["b", "a"]]) > expected + 0.1


@pytest.mark.parametrize("package", [pd, pl])
def test_other_columns_are_refused(any_metric, package):
    X = package.DataFrame({"a": np.arange(5.0), "b": np.ones(5)})
    Y = package.DataFrame({"b": np.ones(5), "c": np.arange(5.0)})
    with pytest.raises(
        ValueError, match=r"Y lacks the columns \['a'\] of X and has \['c'\], which X has not"
    ):
        any_metric(X, Y)
    with pytest.raises(ValueError, match=r"Y lacks the columns \[\] of X and has \['c'\]"):
        any_metric(X[["b"]], Y)


def test_a_column_that_is_there_twice_has_no_place():
    X = pd.DataFrame(np.zeros((3, 3)), columns=["a", "a", "b"])
    # Newer versions of scikit-learn refuse it by themselves.
    with pytest.raises(ValueError, match=r"the same names, once each|unique column names"):
        energy_distance(X, X[["b", "a"]])


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1)])
def test_images_are_flattened_to_rows(any_metric, shape):
    rng = np.random.default_rng(0)
    X, Y = (rng.integers(low, 256, size=(20, *shape)).astype(np.uint8) for low in (0, 100))
    assert any_metric(X, Y) == any_metric(X.reshape(20, -1).astype(float), Y.reshape(20, -1).astype(float))
    assert any_metric(X.tolist(), Y) == any_metric(X, Y)


def test_samples_of_the_wrong_shape(any_metric):
    expected = r"expected rows \(n, n_features\) or images \(n, H, W\)"
    images = np.zeros((5, 3, 2))
    with pytest.raises(ValueError, match=rf"X has the shape \(5,\); {expected}.*pass X.reshape\(-1, 1\)"):
        any_metric(np.zeros(5), images)
    with pytest.raises(ValueError, match=rf"Y has the shape \(5, 1, 1, 1, 1\); {expected}"):
        any_metric(images, np.zeros((5, 1, 1, 1, 1)))
    with pytest.raises(ValueError, match=rf"Y is a list of samples of different shapes; {expected}"):
        any_metric(images, [np.zeros((3, 2)), np.zeros((3, 1))])
    with pytest.raises(ValueError, match=r"X has images of the shape \(3, 2\) and Y has .* \(2, 3\)"):
        any_metric(images, np.zeros((5, 2, 3)))
    with pytest.raises(ValueError, match=r"X has images of the shape \(3, 2\) and Y has 6 features"):
        any_metric(images, np.zeros((5, 6)))


def test_energy_distance_needs_two_rows():
    with pytest.raises(ValueError, match="minimum of 2"):
        energy_distance(np.zeros((1, 2)), np.zeros((5, 2)))


@pytest.mark.parametrize("metric", [energy_distance, wasserstein_distance, sliced_wasserstein_distance])
def test_a_common_shift_costs_no_precision(metric):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 2)), 3 + rng.normal(size=(50, 2))
    assert metric(X + 1.7e9, Y + 1.7e9) == pytest.approx(metric(X, Y), rel=1e-5)


def test_frechet_distance_of_exact_gaussians():
    """Samples whose mean and covariance are exact: the distance has a closed form where they commute."""
    rng = np.random.default_rng(0)
    white = rng.normal(size=(500, 3))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    X, Y = white * [1.0, 2.0, 3.0] @ rotation, white * [2.0, 2.0, 0.5] @ rotation + [1.0, -2.0, 0.0]
    assert frechet_distance(X, Y) == pytest.approx(5 + 1 + 0 + 2.5**2)
    assert frechet_distance(Y, X) == pytest.approx(frechet_distance(X, Y))
    assert frechet_distance(X, X + 1e6) == pytest.approx(3e12)
    assert 0 <= frechet_distance(X, X) < 1e-10


def test_frechet_distance_of_gaussians_that_do_not_commute():
    rng = np.random.default_rng(0)
    X, Y = (
        rng.normal(size=(400, 2)) @ [[2.0, 1.0], [0.0, 1.0]],
        rng.normal(size=(300, 2)) @ [[1.0, 0.0], [3.0, 1.0]],
    )
    a, b = np.cov(X.T), np.cov(Y.T)
    cross = scipy.linalg.sqrtm(a @ b).real
    expected = np.square(X.mean(0) - Y.mean(0)).sum() + np.trace(a + b - 2 * cross)
    assert frechet_distance(X, Y) == pytest.approx(expected)


def test_frechet_distance_of_degenerate_samples():
    """Constant features, and fewer rows than features."""
    X = np.column_stack([np.arange(5.0), np.full(5, 7.0)])
    assert frechet_distance(X, X + np.array([0, 2])) == pytest.approx(4)
    few = np.random.default_rng(0).normal(size=(20, 500))
    assert frechet_distance(few, few + 1) == pytest.approx(500)
    assert frechet_distance(few, few + 1e-4) == pytest.approx(5e-6, rel=1e-3)
    other = np.random.default_rng(1).normal(size=(30, 500))
    assert frechet_distance(few, other) == pytest.approx(frechet_distance(other, few), rel=1e-12)
    with pytest.raises(ValueError, match="minimum of 2"):
        frechet_distance(X[:1], X)
    with pytest.raises(ValueError, match="X has 2 features and Y has 3"):
        frechet_distance(X, np.ones((5, 3)))


def test_sliced_wasserstein_distance_of_one_feature_is_exact():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 1)), rng.normal(3, 2, size=(30, 1))
    assert sliced_wasserstein_distance(X, Y) == pytest.approx(wasserstein_distance(X, Y))
    assert sliced_wasserstein_distance(X, X[::-1] + 3, n_projections=1) == pytest.approx(3)


def test_sliced_wasserstein_distance_of_a_shift():
    X = np.random.default_rng(0).normal(size=(50, 4))
    shifted = np.flip(X, 0) + np.array([2, 0, 0, 0])
    assert sliced_wasserstein_distance(X, shifted, n_projections=20_000) == pytest.approx(1, rel=0.03)
    assert sliced_wasserstein_distance(X, shifted) == sliced_wasserstein_distance(X, shifted)
    assert sliced_wasserstein_distance(X, X[::-1]) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="n_projections"):
        sliced_wasserstein_distance(X, X, n_projections=0)


def test_classifier_two_sample_test_from_equal_to_separable():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(400, 2)), rng.normal(size=(150, 2))
    accuracy = classifier_two_sample_test(X, Y)
    assert accuracy == pytest.approx(0.5, abs=0.08)
    assert accuracy == classifier_two_sample_test(X, Y)
    assert classifier_two_sample_test(X, Y + 10) == 1
    wider = rng.normal(size=(150, 2)) * 3
    assert 0.65 < classifier_two_sample_test(X, wider) < 0.95


def test_classifier_two_sample_test_with_a_classifier_and_a_splitter():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(200, 1)), rng.normal(2, size=(200, 1))
    accuracy = classifier_two_sample_test(X, Y, classifier=LogisticRegression(), cv=StratifiedKFold(3))
    # The best that there is: the normal distribution function of half the shift.
    assert accuracy == pytest.approx(0.841, abs=0.04)
    with pytest.raises(ValueError, match=r"cv=5 needs at least 5 rows in each sample; got 200 in X and 3"):
        classifier_two_sample_test(X, Y[:3])


@pytest.mark.parametrize("exponent", [-500, 40, 500, 980])
@pytest.mark.parametrize("metric", [energy_distance, wasserstein_distance, sliced_wasserstein_distance])
def test_distances_follow_the_unit(metric, exponent):
    """From 3e-151 to 1e295, where squares are no floats any more; a power of two costs nothing."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 2)), rng.normal(1, size=(30, 2))
    assert metric(X * 2.0**exponent, Y * 2.0**exponent) == metric(X, Y) * 2.0**exponent


@pytest.mark.parametrize("exponent", [-400, 40, 400])
def test_squared_distances_follow_the_unit(exponent):
    rng = np.random.default_rng(0)
    unit, X, Y = 2.0**exponent, rng.normal(size=(20, 2)), rng.normal(1, size=(30, 2))
    assert frechet_distance(X * unit, Y * unit) == frechet_distance(X, Y) * unit**2
    divergence = sinkhorn_divergence(X, Y, blur=0.25)
    assert sinkhorn_divergence(X * unit, Y * unit, blur=0.25 * unit) == divergence * unit**2


def test_a_distance_that_no_float_can_hold_is_an_error():
    X, Y = np.array([[0.0], [1.0]]), np.array([[5.0], [7.0]])
    with pytest.raises(ValueError, match=r"distance of these samples is inf.*Divide X and Y"):
        frechet_distance(X * 1e160, Y * 1e160)
    with pytest.raises(ValueError, match=r"distance of these samples is inf"):
        sinkhorn_divergence(X * 1e160, Y * 1e160, blur=1e159)
    for metric in (energy_distance, wasserstein_distance, sliced_wasserstein_distance):
        with pytest.raises(ValueError, match=r"distance of these samples is inf"):
            metric(np.full((2, 1), -1.7e308), np.full((2, 1), 1.7e308))
        assert metric(X + 1e308, Y + 1e308) == 0


@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_sinkhorn_divergence_needs_a_blur_of_the_samples_size(scale):
    X = np.array([[0.0], [1.0]])
    with pytest.raises(ValueError, match=r"blur=0.1 and samples of the size \de[-+]16\d"):
        sinkhorn_divergence(X * scale, 3 * X * scale, blur=0.1)
    with pytest.raises(ValueError, match="blur='wide': expected a positive number"):
        sinkhorn_divergence(X, X, blur="wide")
    with pytest.raises(ValueError, match="expected a positive number"):
        sinkhorn_divergence(X, X, blur=0)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


NAMES = [
    "classifier_two_sample_test",
    "energy_distance",
    "frechet_distance",
    "sinkhorn_divergence",
    "sliced_wasserstein_distance",
    "wasserstein_distance",
]


def test_scorer_of_a_target_in_y():
    """A shift of half the way leaves the other half."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2))
    y = np.flip(X, 0) + np.array([6, 8])
    estimator = MeanShift(part=0.5).fit(X, y)
    assert raw_scorer("wasserstein_distance")(estimator, X, y) == pytest.approx(-5)
    assert raw_scorer("sinkhorn_divergence", blur=0.01)(estimator, X, y) == pytest.approx(-12.5)
    expected = -energy_distance(X + np.array([3, 4]), y[:20])
    assert raw_scorer()(estimator, X, y[:20]) == pytest.approx(expected)
    columns = {"a": y[:, 0], "b": y[:, 1]}
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns)):
        assert raw_scorer()(estimator, X, frame) == raw_scorer()(estimator, X, y)


@pytest.mark.parametrize("name", NAMES)
def test_scorer_of_two_domains(name):
    X, y, sample_domain = shifted_domains()
    source, target = split_domains(X, sample_domain)
    scorer = raw_scorer(name)
    scores = [
        scorer(MeanShift(part).fit(X, sample_domain=sample_domain), X, y, sample_domain=sample_domain)
        for part in (0.0, 1.0)
    ]
    assert scores[0] < scores[1]
    if name != "sinkhorn_divergence":
        metric = globals()[name]
        assert scores[1] == pytest.approx(-metric(source + target.mean(0) - source.mean(0), target))


def test_the_ruler_is_the_targets_not_the_estimators():
    X, _, sample_domain = shifted_domains()
    target = split_domains(X, sample_domain)[1]
    squares = cdist(target, target, "sqeuclidean")[~np.eye(len(target), dtype=bool)]
    estimator = MeanShift().fit(X, sample_domain=sample_domain)
    estimator.blur_ = estimator.blur = 7.0
    scores = [
        raw_scorer("sinkhorn_divergence", **blur)(estimator, X, sample_domain=sample_domain)
        for blur in ({}, {"blur": 0.1 * np.sqrt(squares.mean())})
    ]
    assert scores[0] == pytest.approx(scores[1])
    with pytest.raises(ValueError, match="pass a positive blur to make_transport_scorer"):
        make_transport_scorer("sinkhorn_divergence")(estimator, X, np.zeros((5, 2)))


def test_scorer_of_a_generator():
    X = np.random.default_rng(0).normal([3, 4], size=(300, 2))
    scorer = raw_scorer()
    estimator = MeanShift().fit(X)
    assert abs(scorer(estimator, X)) < 0.1
    assert scorer(estimator, X, np.zeros(300)) == scorer(estimator, X)
    assert scorer(MeanShift(part=0.0).fit(X), X) < -3
    assert abs(scorer(make_pipeline(StandardScaler(), MeanShift()).fit(X), X)) < 0.1


def test_scorer_of_images():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 4, 3)), rng.normal(2, size=(15, 4, 3))
    scorer = raw_scorer("wasserstein_distance")
    expected = -wasserstein_distance((X + Y.mean(0) - X.mean(0)).reshape(20, -1), Y.reshape(15, -1))
    assert scorer(MeanShift().fit(X, Y), X, Y) == pytest.approx(expected)
    assert scorer(MeanShift().fit(Y), Y) < 0


@pytest.mark.parametrize("package", [pd, pl])
def test_scorer_matches_columns_by_name(package):
    rng = np.random.default_rng(0)
    X, y = one_wide_column(rng, 30), one_wide_column(rng, 40)
    frame, target = (package.DataFrame({"a": Z[:, 0], "b": Z[:, 1]}) for Z in (X, y))
    scorer, stays = make_transport_scorer(), FunctionTransformer().fit(X)
    expected = scorer(stays, X, y)
    assert scorer(stays, frame, target[["b", "a"]]) == pytest.approx(expected)
    assert scorer(stays, frame, y) == pytest.approx(expected)
    assert scorer(stays, X, target[["b", "a"]]) < expected - 0.1
    with pytest.raises(ValueError, match=r"y lacks the columns \['a'\] of X and has \[\]"):
        scorer(stays, frame, target[["b"]])
    # What it moves to is an array, in the order of X.
    moves = MeanShift().fit(X, y)
    assert scorer(moves, frame, target[["b", "a"]]) == pytest.approx(scorer(moves, X, y))


@pytest.mark.parametrize("package", [pd, pl])
def test_scorer_of_a_generator_matches_columns_by_name(package):
    rows = np.random.default_rng(0).normal([3, 40], size=(100, 2))
    X = package.DataFrame({"a": rows[:, 0], "b": rows[:, 1]})
    flow = SinkhornFlowTransport(n_flows=1, flow_batch_size=16, n_steps=2, max_iter=2, random_state=0).fit(X)
    scorer = make_transport_scorer()
    assert scorer(flow, X[["b", "a"]]) == scorer(flow, X) > -1
    with pytest.raises(ValueError, match=r"X lacks the columns \['a'\] of the fit"):
        scorer(flow, X[["b"]])


def test_scorer_with_a_callable():
    def difference_of_means(moved, target, power=1):
        return np.abs(moved.mean() - target.mean()) ** power

    scorer = make_transport_scorer(difference_of_means, power=2)
    X, y = np.zeros((4, 1)), np.full((3, 1), 4.0)
    assert scorer(MeanShift(part=0.5).fit(X, y), X, y) == -4
    assert repr(scorer).endswith("difference_of_means, power=2)")


def test_scorer_hands_labels_on_where_they_condition():
    X, y, sample_domain = shifted_domains()
    for mode, expected in {"condition": y, "ignore": None}.items():
        estimator = MeanShift(label_mode=mode).fit(X, sample_domain=sample_domain)
        make_transport_scorer()(estimator, X, y, sample_domain=sample_domain)
        assert estimator.labels_seen_ is expected
        estimator = MeanShift(label_mode=mode).fit(X)
        make_transport_scorer()(estimator, X, y)
        assert estimator.labels_seen_ is expected


def test_a_score_does_not_depend_on_units():
    """The column in the largest unit decides nothing, and a search over scalers finds no smaller ruler."""
    X, _, sample_domain = shifted_domains()
    scorer = make_transport_scorer()
    scores = []
    for factor in (np.ones(2), np.array([1e6, 1e-3])):
        estimator = MeanShift(part=0.5).fit(X * factor, sample_domain=sample_domain)
        scores.append(scorer(estimator, X * factor, sample_domain=sample_domain))
    assert scores[0] == pytest.approx(scores[1])
    target = X[sample_domain < 0]
    moved = MeanShift(part=0.5).fit(X, sample_domain=sample_domain).transform(X)[sample_domain > 0]
    assert scores[0] == pytest.approx(
        -energy_distance(moved / target.std(axis=0), target / target.std(axis=0))
    )


def test_scorer_is_a_value():
    scorer = make_transport_scorer("sinkhorn_divergence", blur=0.1)
    assert repr(scorer) == "make_transport_scorer('sinkhorn_divergence', blur=0.1)"
    assert repr(make_transport_scorer()) == "make_transport_scorer('energy_distance')"
    X, _, sample_domain = shifted_domains()
    estimator = MeanShift().fit(X, sample_domain=sample_domain)
    values = [
        each(estimator, X, sample_domain=sample_domain)
        for each in (scorer, pickle.loads(pickle.dumps(scorer)))
    ]
    assert values[0] == values[1]


def test_bad_scorers():
    with pytest.raises(ValueError, match=r"metric='energy': expected a callable or one of \['classifier"):
        make_transport_scorer("energy")
    with pytest.raises(TypeError, match="blurr"):
        make_transport_scorer("sinkhorn_divergence", blurr=0.1)
    X, y = np.zeros((4, 1)), np.ones((4, 1))
    estimator, scorer = MeanShift().fit(X, y), make_transport_scorer()
    with pytest.raises(ValueError, match="expected one of them"):
        scorer(estimator, X, y, sample_domain=[1, 1, -2, -2])
    with pytest.raises(ValueError, match="no target rows"):
        scorer(estimator, X, sample_domain=[1, 1, 1, 1])
    with pytest.raises(
        ValueError, match="StandardScaler transports a source to a target, and the scorer got X"
    ):
        scorer(StandardScaler().fit(X), X)


def test_scorer_knows_that_an_estimator_has_a_source():
    rng = np.random.default_rng(0)
    flow = SinkhornFlowTransport(n_flows=2, flow_batch_size=16, n_steps=2, max_iter=5, random_state=0)
    X, y = rng.normal(size=(20, 2)), rng.normal(size=(25, 2))
    with pytest.raises(ValueError, match=r"got X alone.*set_config\(enable_metadata_routing=True\)"):
        make_transport_scorer()(flow.fit(X, y), X)
    assert np.isfinite(make_transport_scorer()(flow.fit(X), X))


@pytest.mark.parametrize("estimator", [MeanShift(), make_pipeline(StandardScaler(), MeanShift())])
def test_searches_hand_sample_domain_to_the_scorer(routing, estimator):
    X, y, sample_domain = shifted_domains(90, 60)
    name = "part" if isinstance(estimator, MeanShift) else "meanshift__part"
    options = {"cv": DomainKFold(3), "error_score": "raise"}
    for labels in (None, y):
        search = GridSearchCV(
            estimator, {name: [0.0, 0.5, 1.0, 2.0]}, scoring=make_transport_scorer(), **options
        ).fit(X, labels, sample_domain=sample_domain)
        assert search.best_params_ == {name: 1.0}
        assert search.best_score_ > 0.2 * search.cv_results_["mean_test_score"][0]
    scoring = {
        "energy": make_transport_scorer(),
        "sliced": make_transport_scorer("sliced_wasserstein_distance"),
    }
    several = GridSearchCV(estimator, {name: [0.0, 1.0]}, scoring=scoring, refit="sliced", **options)
    several.fit(X, sample_domain=sample_domain)
    assert several.best_params_ == {name: 1.0}
    assert several.cv_results_["mean_test_energy"][0] < several.cv_results_["mean_test_energy"][1]
    for nested in (search, several):
        result = cross_validate(
            nested, X, params={"sample_domain": sample_domain}, scoring=make_transport_scorer(), **options
        )
        assert np.all(result["test_score"] > 0.2 * several.cv_results_["mean_test_energy"][0])


def test_search_without_routing():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    y = np.flip(X, 0) + np.array([6, 8])
    grid, scorer = {"part": [0.0, 1.0, 2.0]}, make_transport_scorer()
    assert GridSearchCV(MeanShift(), grid, scoring=scorer, error_score="raise").fit(X, y).best_params_ == {
        "part": 1.0
    }
    generator = GridSearchCV(MeanShift(), grid, scoring=scorer, error_score="raise").fit(y)
    assert generator.best_params_ == {"part": 1.0}


def test_scorer_with_a_splitter_of_skada():
    with sklearn.config_context():
        # It switches metadata routing on where it is imported.
        model_selection = pytest.importorskip("skada.model_selection")
        X, _, sample_domain = shifted_domains()
        sklearn.set_config(enable_metadata_routing=True)
        search = GridSearchCV(
            MeanShift(),
            {"part": [0.0, 1.0]},
            scoring=make_transport_scorer(),
            cv=model_selection.SourceTargetShuffleSplit(3, test_size=0.3, random_state=0),
            error_score="raise",
        ).fit(X, sample_domain=sample_domain)
    assert search.best_params_ == {"part": 1.0}
