"""Pipelines, searches, stacked samples: the estimators among scikit-learn's own."""

import os
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from clouds import two_clouds
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_validate,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr
from sklearn.utils.fixes import parse_version

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._documentation import ADDRESS
from sklearn_nsgf.domains import DomainKFold, SourceOnly, split_domains, stack_domains
from sklearn_nsgf.metrics import energy_distance, make_transport_scorer

SMALL = {"max_iter": 20, "hidden_layer_sizes": (16,), "random_state": 0}
FLOWS = {"n_flows": 2, "flow_batch_size": 32}
COUPLINGS = {"n_couplings": 2, "coupling_batch_size": 32}
ESTIMATORS = {
    "sinkhorn": SinkhornFlowTransport(**SMALL, **FLOWS),
    "matching": FlowMatchingTransport(**SMALL, **COUPLINGS),
    "plus plus": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS),
}


@pytest.fixture(params=ESTIMATORS)
def est(request):
    return clone(ESTIMATORS[request.param])


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture
def stacked():
    X, _, domain = stack_domains(*two_clouds(90, 60))
    return X, domain


def test_a_stacked_fit_is_the_fit_of_both_samples(est, stacked):
    X, domain = stacked
    order = np.random.default_rng(0).permutation(len(X))
    source, target = split_domains(X[order], domain[order])
    expected = clone(est).fit(source, target)
    est.fit(X[order], sample_domain=domain[order])
    moved = est.transform(X[order], sample_domain=domain[order])
    np.testing.assert_array_equal(moved[domain[order] > 0], expected.transform(source))
    np.testing.assert_array_equal(moved[domain[order] < 0], target)
    assert est.score(X[order], sample_domain=domain[order]) == expected.score(source, target)
    np.testing.assert_array_equal(clone(est).fit_transform(X[order], sample_domain=domain[order]), moved)


def test_a_frame_stays_a_frame(est):
    frames = [pd.DataFrame(cloud, columns=["a", "b"]) for cloud in two_clouds(40, 30)]
    X, _, domain = stack_domains(*frames)
    moved = est.set_output(transform="pandas").fit(X, sample_domain=domain).transform(X, sample_domain=domain)
    assert list(moved.columns) == ["a", "b"]
    np.testing.assert_array_equal(moved[domain < 0], frames[1])


@pytest.mark.parametrize("search", [GridSearchCV, RandomizedSearchCV])
def test_searches_over_stacked_samples(est, stacked, routing, search):
    X, domain = stacked
    grid = {"learning_rate": [0.001, 0.01]}
    options = {"cv": DomainKFold(3), "error_score": "raise"}
    if search is RandomizedSearchCV:
        options["n_iter"] = 2
    found = search(est, grid, **options).fit(X, sample_domain=domain)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    again = clone(est).set_params(**found.best_params_).fit(X, sample_domain=domain)
    np.testing.assert_array_equal(found.best_estimator_.transform(X), again.transform(X))


def test_halving_over_iterations(est, stacked, routing):
    X, domain = stacked
    search = HalvingGridSearchCV(
        est,
        {"learning_rate": [0.001, 0.003, 0.01]},
        resource="max_iter",
        min_resources=4,
        max_resources=12,
        cv=DomainKFold(2),
        error_score="raise",
        random_state=0,
    ).fit(X, sample_domain=domain)
    assert search.best_estimator_.max_iter == 12


def test_in_each_fold_both_samples_are_cut_alike(est, stacked, routing):
    X, domain = stacked
    sizes = []

    def count(source, target):
        sizes.append((len(source), len(target)))
        return energy_distance(source, target)

    scorer = make_transport_scorer(count)
    found = cross_validate(est, X, params={"sample_domain": domain}, cv=DomainKFold(3), scoring=scorer)
    assert sizes == [(30, 20)] * 3
    assert np.isfinite(found["test_score"]).all()


def test_a_scaler_before_it_sees_both_samples(est, stacked, routing):
    X, domain = stacked
    pipeline = make_pipeline(StandardScaler(), est)
    moved = pipeline.fit(X, sample_domain=domain).transform(X, sample_domain=domain)
    Z = StandardScaler().fit_transform(X)
    expected = clone(est).fit(Z, sample_domain=domain).transform(Z, sample_domain=domain)
    np.testing.assert_array_equal(moved, expected)
    score = pipeline.score(X, sample_domain=domain)
    unit = Z[domain < 0].std(axis=0)
    assert score == pytest.approx(-energy_distance(moved[domain > 0] / unit, Z[domain < 0] / unit))
    # Without a scorer scikit-learn before 1.8 hands no metadata to the score of a pipeline.
    options = {"cv": DomainKFold(2), "error_score": "raise", "scoring": make_transport_scorer()}
    grid = GridSearchCV(pipeline, {"standardscaler__with_mean": [True, False]}, **options)
    assert np.isfinite(grid.fit(X, sample_domain=domain).cv_results_["mean_test_score"]).all()


METRICS = [
    "energy_distance",
    "sinkhorn_divergence",
    "sliced_wasserstein_distance",
    "classifier_two_sample_test",
]


@pytest.mark.parametrize("metric", METRICS)
def test_scorers(stacked, routing, metric):
    X, domain = stacked
    search = GridSearchCV(
        clone(ESTIMATORS["sinkhorn"]).set_params(max_iter=1),
        {"frame": ["none", "linear"]},
        scoring=make_transport_scorer(metric),
        cv=DomainKFold(2),
        error_score="raise",
    ).fit(X, sample_domain=domain)
    assert search.best_params_ == {"frame": "linear"}


def test_a_grid_over_a_generator(est):
    _, target = two_clouds()
    search = GridSearchCV(est, {"n_jobs": [1]}, cv=2, error_score="raise").fit(target[:80])
    assert np.isfinite(search.best_score_)


def domain_adaptation(seed=0):
    """Two classes side by side, which a turn, a stretch and a shift have moved."""
    rng = np.random.default_rng(seed)
    y_source, y_target = rng.permutation(np.arange(120) % 2), rng.permutation(np.arange(120) % 2)
    source, target = (
        0.4 * rng.normal(size=(120, 2)) + np.c_[2 * labels - 1, np.zeros(120)]
        for labels in (y_source, y_target)
    )
    return source, 2 * target @ [[0.9, 0.4], [-0.4, 0.9]] + [4, 0], y_source, y_target


@pytest.mark.parametrize("mode", ["ignore", "couple"])
def test_a_classifier_behind_it(routing, mode):
    """The pipeline is the two steps written by hand."""
    source, target, y_source, y_target = domain_adaptation()
    X, y, domain = stack_domains(source, target, y_source)
    est = clone(ESTIMATORS["sinkhorn"]).set_params(label_mode=mode, max_iter=200)
    pipeline = make_pipeline(est, SourceOnly(KNeighborsClassifier(1)))
    pipeline.fit(X, y, sample_domain=domain)
    flow = clone(est).fit(X, y, sample_domain=domain)
    by_hand = KNeighborsClassifier(1).fit(flow.transform(source), y_source)
    is_target = np.full(len(target), -2)
    np.testing.assert_array_equal(pipeline.predict(target, sample_domain=is_target), by_hand.predict(target))
    assert pipeline[-1].classes_.tolist() == [0, 1]
    accuracy = pipeline.score(target, y_target, sample_domain=is_target)
    assert accuracy == by_hand.score(target, y_target) > 0.9
    assert KNeighborsClassifier(1).fit(source, y_source).score(target, y_target) < 0.7


@pytest.mark.parametrize("names", [None, ["left", "right"]])
def test_a_classifier_and_its_transport_in_a_search(est, routing, names):
    """All of it is chosen together, and what is chosen is the two steps written by hand."""
    source, target, codes, _ = domain_adaptation()
    y_source = codes if names is None else np.take(names, codes)
    X, y, domain = stack_domains(source, target, y_source)
    grid = {"transport__label_mode": ["couple"], "transport__frame": ["none", "linear"]}
    model = SourceOnly(KNeighborsClassifier(3), transport=est)
    search = GridSearchCV(model, grid, cv=DomainKFold(2), error_score="raise")
    search.fit(X, y, sample_domain=domain)
    assert search.best_score_ > 0.9
    flow = clone(est).set_params(label_mode="couple", frame=search.best_params_["transport__frame"])
    flow.fit(X, y, sample_domain=domain)
    by_hand = KNeighborsClassifier(3).fit(flow.transform(source), y_source)
    np.testing.assert_array_equal(search.predict(target), by_hand.predict(target))
    assert flow.classes_.tolist() == np.unique(y_source).tolist()


def test_a_named_scorer_counts_placeholders_as_errors(routing):
    source, target, y_source, _ = domain_adaptation()
    X, y, domain = stack_domains(source, target, y_source)
    model = SourceOnly(KNeighborsClassifier(3), transport=clone(ESTIMATORS["sinkhorn"]))
    search = GridSearchCV(model, {}, cv=DomainKFold(2), scoring="accuracy", error_score="raise")
    assert search.fit(X, y, sample_domain=domain).best_score_ <= 0.5


def test_a_transport_with_a_condition(routing):
    source, target, y_source, y_target = domain_adaptation()
    X, y, domain = stack_domains(source, target, y_source, y_target)
    est = clone(ESTIMATORS["sinkhorn"]).set_params(label_mode="condition")
    model = SourceOnly(KNeighborsClassifier(3), transport=est).fit(X, y, sample_domain=domain)
    flow = clone(est).fit(X, y, sample_domain=domain)
    by_hand = KNeighborsClassifier(3).fit(flow.transform(source, labels=y_source), y_source)
    np.testing.assert_array_equal(model.predict_proba(target), by_hand.predict_proba(target))


@pytest.mark.parametrize("package", [pd, pl])
def test_a_frame_through_scaler_transport_and_classifier(est, routing, package):
    source, target, y_source, y_target = domain_adaptation()
    source, target = (package.DataFrame({"a": rows[:, 0], "b": rows[:, 1]}) for rows in (source, target))
    X, y, domain = stack_domains(source, target, np.take(["left", "right"], y_source))
    scaler = StandardScaler().set_output(transform=package.__name__)
    pipeline = make_pipeline(scaler, SourceOnly(KNeighborsClassifier(3), transport=est))
    pipeline.fit(X, y, sample_domain=domain)
    assert pipeline[-1].feature_names_in_.tolist() == ["a", "b"]
    assert pipeline.score(target, np.take(["left", "right"], y_target)) > 0.8


def test_a_transport_chosen_in_its_own_search(routing):
    source, target, y_source, y_target = domain_adaptation()
    X, y, domain = stack_domains(source, target, y_source)
    search = GridSearchCV(clone(ESTIMATORS["sinkhorn"]), {"frame": ["none", "linear"]}, cv=DomainKFold(2))
    model = SourceOnly(KNeighborsClassifier(3), transport=search).fit(X, y, sample_domain=domain)
    assert model.transport_.best_params_ == {"frame": "linear"}
    assert model.score(target, y_target) > 0.8


def test_a_search_behind_a_scaler(routing):
    """The way that scikit-learn before 1.8 has, too."""
    source, target, y_source, _ = domain_adaptation()
    X, y, domain = stack_domains(source, target, y_source)
    model = SourceOnly(KNeighborsClassifier(3), transport=clone(ESTIMATORS["sinkhorn"]))
    grid = {"transport__frame": ["none", "linear"]}
    search = GridSearchCV(model, grid, cv=DomainKFold(2), error_score="raise")
    pipeline = make_pipeline(StandardScaler(), search).fit(X, y, sample_domain=domain)
    assert pipeline[-1].best_score_ > 0.9
    assert len(pipeline.predict(target)) == len(target)


def test_a_search_over_scaler_transport_and_classifier(routing):
    source, target, y_source, _ = domain_adaptation()
    X, y, domain = stack_domains(source, target, y_source)
    model = SourceOnly(KNeighborsClassifier(3), transport=clone(ESTIMATORS["sinkhorn"]))
    pipeline = make_pipeline(StandardScaler(), model)
    grid = {"sourceonly__transport__frame": ["linear"]}
    search = GridSearchCV(pipeline, grid, cv=DomainKFold(2), error_score="raise")
    if parse_version(sklearn.__version__) < parse_version("1.8"):
        with pytest.warns(UserWarning, match="are not moved"):
            search.fit(X, y, sample_domain=domain)
    else:
        assert search.fit(X, y, sample_domain=domain).best_score_ > 0.9


def test_a_classifier_behind_it_with_all_labels(routing):
    """Where the target has labels too, a plain classifier does."""
    source, target, y_source, y_target = domain_adaptation()
    X, y, domain = stack_domains(source, target, y_source, y_target)
    est = clone(ESTIMATORS["sinkhorn"])
    pipeline = make_pipeline(est, KNeighborsClassifier(1)).fit(X, y, sample_domain=domain)
    Z = clone(est).fit_transform(X, sample_domain=domain)
    by_hand = KNeighborsClassifier(1).fit(Z, y)
    _, new_target, _, y_new = domain_adaptation(1)
    is_target = np.full(len(y_new), -2)
    assert pipeline.score(new_target, y_new, sample_domain=is_target) == by_hand.score(new_target, y_new)


def test_a_splitter_of_skada(stacked, routing):
    model_selection = pytest.importorskip("skada.model_selection")
    X, domain = stacked
    splitter = model_selection.SourceTargetShuffleSplit(n_splits=2, random_state=0)
    est = clone(ESTIMATORS["sinkhorn"])
    for train, test in splitter.split(X, np.zeros(len(X)), domain):
        est.fit(X[train], sample_domain=domain[train])
        assert np.isfinite(est.transform(X[test], sample_domain=domain[test])).all()


WRONG_DOMAINS = {
    "holds a target sample|is then None": {
        "y": np.zeros((150, 2)),
        "sample_domain": np.repeat([1, -1], [90, 60]),
    },
    "no target rows": {"sample_domain": np.ones(150)},
    "no source rows": {"sample_domain": -np.ones(150)},
    "1 target rows": {"sample_domain": np.r_[-1, np.ones(149)]},
    r"shape \(3,\) and X has 150 rows": {"sample_domain": [1, 1, -1]},
    "is boolean": {"sample_domain": np.ones(150, dtype=bool)},
    "NaN": {"sample_domain": np.full(150, np.nan)},
}


@pytest.mark.parametrize("message", WRONG_DOMAINS)
def test_wrong_domains(stacked, message):
    X, _ = stacked
    with pytest.raises(ValueError, match=message):
        clone(ESTIMATORS["sinkhorn"]).fit(X, **WRONG_DOMAINS[message])


def test_a_score_of_one_sample_says_what_is_missing(est, stacked):
    X, domain = stacked
    est.fit(X, sample_domain=domain)
    with pytest.raises(ValueError, match="Pass the target sample as y, or both samples in X"):
        est.score(X)
    with pytest.raises(ValueError, match="does not support weights"):
        est.score(X, sample_domain=domain, sample_weight=np.ones(len(X)))


def test_transform_of_target_rows_alone(est, stacked):
    X, domain = stacked
    est.fit(X, sample_domain=domain)
    np.testing.assert_array_equal(
        est.transform(X[domain < 0], sample_domain=domain[domain < 0]), X[domain < 0]
    )


def test_html(est):
    page = estimator_html_repr(est.fit(*two_clouds(30, 30)))
    name = type(est).__name__
    # Only to pages that are there.
    link = f'href="{ADDRESS}generated/sklearn_nsgf.{name}.html"'
    assert (link in page) == bool(ADDRESS)
    assert repr(est).startswith(f"{name}(")


def test_images_come_as_arrays():
    images = np.random.default_rng(0).normal(size=(20, 6, 6))
    est = clone(ESTIMATORS["matching"]).set_params(max_iter=1).set_output(transform="pandas").fit(images)
    with pytest.raises(ValueError, match=r"set_output\(transform='pandas'\) is for rows"):
        est.transform(images)
    assert est.set_output(transform="default").transform(images).shape == images.shape


REFIT = """
import sys
import joblib
import numpy as np
from clouds import two_clouds
est, n_jobs = joblib.load(sys.argv[1]), int(sys.argv[2])
source, target = two_clouds(90, 60)
np.save(sys.argv[3], est.set_params(n_jobs=n_jobs).fit(source, target).transform(source))
"""


def test_a_fresh_process_gives_the_same_bytes(tmp_path):
    est = clone(ESTIMATORS["plus plus"])
    joblib.dump(est, tmp_path / "est.joblib")
    source, target = two_clouds(90, 60)
    expected = est.fit(source, target).transform(source)
    for n_jobs in (1, 2):
        script = [sys.executable, "-c", REFIT, tmp_path / "est.joblib", str(n_jobs), tmp_path / "moved.npy"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(script, check=True, timeout=120, env=environment)
        np.testing.assert_array_equal(np.load(tmp_path / "moved.npy"), expected)
