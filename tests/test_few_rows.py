"""Few rows: a flow starts at the linear map and leaves it only for something better."""

import numpy as np
import pytest
from clouds import two_clouds
from scipy.spatial.distance import cdist
from sklearn.base import clone

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._learning import folds
from sklearn_nsgf.metrics import energy_distance

SMALL = {"hidden_layer_sizes": (32,), "random_state": 0}
ESTIMATORS = {
    "sinkhorn": SinkhornFlowTransport(**SMALL, n_flows=4, flow_batch_size=128),
    "matching": FlowMatchingTransport(**SMALL, n_couplings=32, coupling_batch_size=128),
    "direct": NSGFPlusPlus(**SMALL, n_flows=4, n_couplings=32, coupling_batch_size=128),
    "predicted": NSGFPlusPlus(**SMALL, n_flows=4, n_couplings=32, transition="predicted"),
}


@pytest.fixture(params=ESTIMATORS)
def est(request):
    return ESTIMATORS[request.param].__class__(**ESTIMATORS[request.param].get_params())


def gaussians(n_rows, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_rows, 3)), rng.normal(0.3, 1.2, size=(n_rows, 3))


def linear_map(est, X):
    frame = est.model_.space.frame
    return frame.decode(frame.encode(X, 0.0), 1.0, float)


def test_rows_that_support_no_network_get_the_linear_map(est):
    """Exactly, for any number of steps, and back again."""
    source, target = gaussians(40)
    with pytest.warns(UserWarning, match="No network brings .* than the start alone, the linear map, "):
        est.set_params(max_iter=100, frame="linear").fit(source, target)
    assert est.model_.n_kept == 0
    new, _ = gaussians(30, seed=1)
    np.testing.assert_allclose(est.transform(new), linear_map(est, new), rtol=0, atol=1e-12)
    np.testing.assert_allclose(est.integrate(new, n_steps=3), est.transform(new), rtol=0, atol=1e-12)
    if getattr(est, "transition", "direct") == "direct":
        back = est.inverse_transform(est.transform(new))
        np.testing.assert_allclose(back, new, rtol=0, atol=1e-12)


@pytest.mark.parametrize("early_stopping", [True, False])
def test_without_iterations_the_start_is_all(est, early_stopping):
    """Of all rows: with the same rows held out, the map would be another one."""
    source, target = gaussians(60)
    est.set_params(max_iter=0, frame="linear", early_stopping=early_stopping, verbose=2)
    moved = est.fit(source, target).transform(source)
    assert est.n_iter_ == 0
    np.testing.assert_allclose(moved, linear_map(est, source), rtol=0, atol=1e-12)
    np.testing.assert_allclose(moved.mean(axis=0), target.mean(axis=0), rtol=0, atol=1e-12)
    drawn = est.set_params(frame="auto").fit(target).sample(2000, random_state=0)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(target.T), rtol=0, atol=0.3)


def test_no_iterations_leave_what_was_learnt(est):
    samples = gaussians(60)
    est.set_params(max_iter=20, warm_start=True, early_stopping=False).fit(*samples)
    learnt = est.transform(samples[0])
    assert est.set_params(max_iter=0).fit(*samples).n_iter_ > 0
    np.testing.assert_array_equal(est.transform(samples[0]), learnt)


@pytest.mark.filterwarnings("ignore:The column", "ignore:No network brings")
@pytest.mark.parametrize("kind", ["none", "shift", "scale", "linear", "quantile"])
def test_a_far_value_may_be_held_out(kind, est):
    """No frame of the other rows has a place for it."""
    source, target = gaussians(60)
    source[0, 0], target[3, 1] = 1e17, -1e17
    est.set_params(max_iter=2, frame=kind)
    assert np.isfinite(est.fit(source, target).transform(source)).all()


def test_units_do_not_matter(est):
    """Nor does a shift of either sample; with the linear map found in them."""
    source, target = gaussians(60)
    mixed = source @ [[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.3, 2.0]]
    est.set_params(max_iter=20)
    expected = est.fit(mixed, target).transform(mixed)
    factor, shift = np.array([1e6, 1e-3, 5.0]), np.array([7.0, -300.0, 0.0])
    again = est.fit(mixed * factor + shift, target * factor).transform(mixed * factor + shift)
    np.testing.assert_allclose(again / factor, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["sinkhorn", "matching", "direct"])
def test_what_is_not_linear_is_learnt(name):
    """Two separate clouds of 600 and 500 rows from one."""
    est = ESTIMATORS[name].__class__(**{**ESTIMATORS[name].get_params(), "max_iter": 600})
    source, target = two_clouds()
    est.fit(source, target)
    assert est.model_.n_kept > 0
    new, new_target = two_clouds(seed=1)
    moved = energy_distance(est.transform(new), new_target)
    assert moved < 0.3 * energy_distance(linear_map(est, new), new_target)


def test_a_network_of_ones_own_is_left_too_if_it_does_not_help():
    """Its first answers are not zero, and it learns nothing here."""
    source, target = gaussians(40)
    est = ESTIMATORS["sinkhorn"].__class__(
        **{**ESTIMATORS["sinkhorn"].get_params(), "frame": "linear", "max_iter": 10, "learning_rate": 1e-9}
    )
    with pytest.warns(UserWarning, match="No network brings"):
        est.set_params(network=own_network).fit(source, target)
    np.testing.assert_allclose(est.transform(source), linear_map(est, source), rtol=0, atol=1e-12)


def own_network(event_shape):
    from torch import nn

    from sklearn_nsgf.networks import MLP

    network = MLP(*event_shape, (8,))
    nn.init.normal_(network.layers[-1].weight)
    return network


def test_generation_starts_at_the_covariance_of_the_data(est):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 2)) @ [[1.0, 0.9], [0.0, 0.3]] + [5, -2]
    with pytest.warns(UserWarning, match="No network brings"):
        est.set_params(early_stopping=True, max_iter=10, learning_rate=1e-9).fit(X)
    drawn = est.sample(20_000, random_state=0)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), rtol=0.1)


def test_few_rows_of_a_normal_distribution_are_drawn_from_the_start(est):
    """A network would learn them by heart."""
    X, _ = gaussians(60)
    with pytest.warns(UserWarning, match="No network brings"):
        est.set_params(max_iter=300).fit(X)
    start = est.__class__(**{**est.get_params(), "max_iter": 0}).fit(X)
    np.testing.assert_array_equal(est.sample(50, random_state=0), start.sample(50, random_state=0))


@pytest.mark.usefixtures("one_normal_distribution")
def test_few_rows_of_clusters_are_learnt_in_two_steps_a_row(est):
    X, new = (two_clouds(seed=seed)[1][:150] for seed in (0, 1))
    est.set_params(hidden_layer_sizes=(64, 64), max_iter=2000).fit(X)
    assert {leg.curves.n_kept for leg in est.model_.legs} in ({300}, {0, 300})
    drawn = est.sample(1000, random_state=0)
    start = est.__class__(**{**est.get_params(), "max_iter": 0}).fit(X).sample(1000, random_state=0)
    assert energy_distance(drawn, new) < 0.5 * energy_distance(start, new)


def columns_of_which_one_has_clusters(n_rows, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 5))
    X[:, 0] += 4 * rng.choice([-1, 1], n_rows)
    return X


def test_few_rows_of_clusters_start_at_them(est):
    """Where there is next to nothing to learn."""
    X, new = (two_clouds(seed=seed)[1][:150] for seed in (0, 1))
    drawn = est.set_params(max_iter=0).fit(X).sample(1000, random_state=0)
    assert energy_distance(drawn, new) < 0.01 * energy_distance(new + new.std(axis=0), new)


@pytest.mark.usefixtures("one_normal_distribution")
@pytest.mark.parametrize("name", ["sinkhorn", "matching", "direct"])
def test_clusters_in_one_of_several_columns_are_seen_and_rows_are_not_copied(name):
    """How far draws are from the rows, as a part of how far new rows are: 2 000 steps copy."""
    X, new = (columns_of_which_one_has_clusters(n, seed) for n, seed in ((100, 0), (1000, 1)))
    est = clone(ESTIMATORS[name]).set_params(hidden_layer_sizes=(64, 64))

    def drawn(**params):
        sample = est.set_params(**params).fit(X).sample(1000, random_state=0)
        farther = np.median(cdist(sample, X).min(axis=1)) / np.median(cdist(new, X).min(axis=1))
        return energy_distance(sample[:, :1], new[:, :1]), farther

    energy, farther = drawn()
    assert est.model_.n_kept == 200
    start_energy, _ = drawn(max_iter=0)
    _, copies = drawn(early_stopping=False, max_iter=2000)
    assert energy < 0.3 * start_energy
    assert copies < 0.8 < farther


@pytest.mark.parametrize("n_rows", [2, 3])
@pytest.mark.parametrize("is_generation", [True, False])
def test_too_few_rows_to_hold_any_out_get_the_start(n_rows, is_generation, est):
    source, target = gaussians(n_rows)
    samples = [target] if is_generation else [source, gaussians(50)[1]]
    start = clone(est).set_params(max_iter=0)
    start.fit(*samples)
    with pytest.warns(UserWarning, match=f"has {n_rows} rows, and at least 4 .* than the start alone"):
        est.set_params(max_iter=20).fit(*samples)
    assert est.n_iter_ == 0
    np.testing.assert_array_equal(est.sample(20, random_state=0), start.sample(20, random_state=0))
    assert est.set_params(early_stopping=False).fit(*samples).n_iter_ == 20


@pytest.mark.filterwarnings("ignore:No network brings")
@pytest.mark.parametrize("n_rows", [4, 7, 9])
def test_a_few_rows_are_dealt_to_fewer_folds(n_rows):
    """Of a normal distribution: none of eight trainings is kept."""
    for seed in range(8):
        est = clone(ESTIMATORS["matching"]).set_params(max_iter=200, random_state=seed)
        est.fit(gaussians(n_rows, seed)[0])
        assert (est.model_.n_kept, est.n_iter_) == (0, 200)
        assert len(est.validation_curve_) == 2


def test_rows_of_which_none_of_a_class_can_be_held_out(est):
    X, labels = np.arange(24.0).reshape(12, 2), np.arange(12)
    est.set_params(label_mode="condition", max_iter=5)
    with pytest.warns(UserWarning, match="No class has two rows in each sample"):
        est.fit(X, labels)
    assert est.n_iter_ > 0


def test_a_generation_takes_so_many_steps_a_row(est, monkeypatch):
    """But not more than `max_iter`, nor with `early_stopping=False`."""
    assert (folds.FEW_STEPS, folds.STEPS_PER_ROW) == (200, 2)
    monkeypatch.setattr(folds, "FEW_STEPS", 2)
    monkeypatch.setattr(folds, "STEPS_PER_ROW", 0.01)
    X, _ = gaussians(600)
    # The paper's first network has a quarter of the steps anyway.
    few = 5 + 6 if getattr(est, "transition", "direct") == "predicted" else 6
    for options, expected in (({}, few), ({"max_iter": 4}, 4), ({"early_stopping": False}, 20)):
        again = clone(est).set_params(**{"max_iter": 20} | options).fit(X)
        assert again.n_iter_ == expected


def test_a_generation_of_images_takes_all_steps(monkeypatch):
    monkeypatch.setattr(folds, "FEW_STEPS", 2)
    monkeypatch.setattr(folds, "STEPS_PER_ROW", 0.01)
    images = np.random.default_rng(0).random((12, 4, 6))
    est = FlowMatchingTransport(n_couplings=2, max_iter=5, random_state=0)
    assert est.fit(images).n_iter_ == 5


@pytest.mark.filterwarnings("ignore:No network brings")
def test_a_generation_that_goes_on_holds_rows_out_until_there_are_500():
    est = clone(ESTIMATORS["matching"]).set_params(max_iter=10)
    n_looks = []
    for seed, n_rows in enumerate([200, 200, 150, 20]):
        est.partial_fit(gaussians(n_rows, seed)[0])
        n_looks.append(len(est.validation_curve_))
    assert 0 < n_looks[0] < n_looks[1] == n_looks[2] == n_looks[3]


@pytest.mark.filterwarnings("ignore:No network brings")
def test_a_generation_that_goes_on_from_the_start_asks_all_rows_again():
    """Which are those of a normal distribution once more."""
    est = clone(ESTIMATORS["matching"]).set_params(max_iter=200, warm_start=True)
    X, _ = gaussians(40)
    for k in range(1, 4):
        est.fit(X)
        assert (est.model_.n_kept, est.n_iter_) == (0, 200 * k)
