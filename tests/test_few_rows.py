"""Few rows: a flow starts at the linear map and leaves it only for something better."""

import numpy as np
import pytest
from clouds import two_clouds

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
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


def test_few_rows_of_clusters_are_learnt_in_two_steps_a_row(est):
    X, new = (two_clouds(seed=seed)[1][:150] for seed in (0, 1))
    est.set_params(hidden_layer_sizes=(64, 64), max_iter=2000).fit(X)
    assert {leg.curves.n_kept for leg in est.model_.legs} in ({300}, {0, 300})
    drawn = est.sample(1000, random_state=0)
    start = est.__class__(**{**est.get_params(), "max_iter": 0}).fit(X).sample(1000, random_state=0)
    assert energy_distance(drawn, new) < 0.5 * energy_distance(start, new)
