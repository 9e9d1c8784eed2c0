"""What a user sees of SinkhornFlowTransport."""

import copy
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from clouds import two_clouds
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf._learning import training
from sklearn_nsgf.flow import _blocks
from sklearn_nsgf.metrics import energy_distance
from sklearn_nsgf.networks import MLP

FAST = {"n_flows": 4, "flow_batch_size": 256, "max_iter": 300, "random_state": 0}
SMALL = {"n_flows": 1, "flow_batch_size": 32, "max_iter": 3, "hidden_layer_sizes": (8,), "random_state": 0}


@pytest.fixture(scope="module")
def fitted():
    return SinkhornFlowTransport(**FAST).fit(*two_clouds())


def small(**options):
    return SinkhornFlowTransport(**{**SMALL, **options})


def test_new_points_land_on_new_points_of_the_target(fitted):
    source, target = two_clouds(seed=1)
    before = energy_distance(source, target)
    assert energy_distance(fitted.transform(source), target) < 0.02 * before
    unit = target.std(axis=0)
    moved = fitted.transform(source)
    assert fitted.score(source, target) == pytest.approx(-energy_distance(moved / unit, target / unit))


def test_the_inverse_leads_back(fitted):
    source, target = two_clouds(seed=1)
    back = fitted.inverse_transform(fitted.transform(source))
    assert np.median(np.linalg.norm(back - source, axis=1)) < 0.3
    assert energy_distance(fitted.inverse_transform(target), source) < 0.1


def test_samples_follow_the_target(fitted):
    source, target = two_clouds(seed=1)
    samples = fitted.sample(500, random_state=0)
    assert samples.shape == (500, 2)
    assert energy_distance(samples, target) < 0.03 * energy_distance(source, target)
    np.testing.assert_array_equal(samples, fitted.sample(500, random_state=0))
    assert not np.array_equal(samples, fitted.sample(500, random_state=1))


@pytest.mark.usefixtures("one_normal_distribution")
def test_generation_from_one_sample():
    _, target = two_clouds()
    labels = np.arange(len(target)) % 3
    est = SinkhornFlowTransport(**{**FAST, "max_iter": 1000}).fit(target, labels)
    noise = target.mean(0) + target.std(0) * np.random.default_rng(1).normal(size=(500, 2))
    before = energy_distance(noise, target)
    assert energy_distance(est.sample(500, random_state=0), target) < 0.1 * before
    assert energy_distance(est.transform(noise), target) < 0.1 * before
    unit, drawn = target.std(axis=0), est.sample(500, random_state=0)
    assert est.score(target) == pytest.approx(-energy_distance(drawn / unit, target / unit))


def test_the_path_starts_at_the_source_and_ends_at_the_answer(fitted):
    source, _ = two_clouds(seed=1)
    path = fitted.integrate(source[:20], return_path=True)
    assert path.shape == (fitted.n_steps + 1, 20, 2)
    np.testing.assert_allclose(path[0], source[:20], rtol=0, atol=1e-12)
    np.testing.assert_allclose(path[-1], fitted.transform(source[:20]), rtol=0, atol=1e-12)
    halfway = fitted.integrate(source[:20], t_end=0.4, n_steps=2)
    np.testing.assert_allclose(halfway, path[2], rtol=0, atol=1e-12)
    soon = fitted.integrate(path[0], t_end=1e-6, n_steps=1)
    np.testing.assert_allclose((soon - path[0]) / 1e-6, fitted.velocity(path[0], 0.0), rtol=0, atol=1e-4)


def test_a_step_of_euler_follows_the_velocity():
    """Exactly, where the frame stretches nothing on the way."""
    source, target = two_clouds()
    est = small(frame="shift", early_stopping=False).fit(source, target)
    path = est.integrate(source[:20], return_path=True)
    one_step = path[0] + est.velocity(path[0], 0.0) / est.n_steps
    np.testing.assert_allclose(one_step, path[1], rtol=0, atol=1e-12)


def test_velocities_at_times_of_their_own(fitted):
    source, _ = two_clouds(seed=1)
    t = np.linspace(0, 1, 30)
    together = fitted.velocity(source[:30], t)
    alone = [fitted.velocity(source[k : k + 1], t[k])[0] for k in range(30)]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", ["midpoint", "heun", "rk4"])
def test_solvers_agree_in_the_limit(fitted, solver):
    source, _ = two_clouds(seed=1)
    fine = fitted.integrate(source[:50], n_steps=200, solver="rk4")
    np.testing.assert_allclose(fitted.integrate(source[:50], n_steps=100, solver=solver), fine, atol=0.02)


def test_units_change_the_answer_as_the_data():
    source, target = two_clouds()
    expected = small().fit(source, target).transform(source)
    for scale, shift in [(1e12, 0.0), (1e-12, 0.0), (1000.0, 12345.0)]:
        est = small().fit(scale * source + shift, scale * target + shift)
        moved = est.transform(scale * source + shift)
        np.testing.assert_allclose((moved - shift) / scale, expected, rtol=0, atol=1e-3)


def test_a_target_30_deviations_away_shifts_only_the_output():
    source, target = two_clouds()
    shift = 30 * target.std(0)
    near, far = small().fit(source, target), small().fit(source, target + shift)
    np.testing.assert_allclose(far.transform(source), near.transform(source) + shift, rtol=0, atol=1e-3)
    assert far.blur_ == pytest.approx(near.blur_)


def test_standardize_decides_whose_distances_count():
    source, target = two_clouds()
    unequal = np.array([1.0, 1000.0])
    plain = small().fit(source, target).transform(source)
    np.testing.assert_allclose(
        small().fit(source * unequal, target * unequal).transform(source * unequal) / unequal,
        plain,
        rtol=0,
        atol=1e-3,
    )
    common = small(standardize=False).fit(source, target)
    assert np.ptp(common.model_.space.frame.scale) == 0


def test_same_seed_same_bytes_and_nothing_global_is_touched():
    source, target = two_clouds()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    n_threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    options = {"early_stopping": False}
    est = small(**options)
    parameters = est.get_params()
    first = est.fit(source, target).transform(source)
    for n_jobs in (None, 1, 2):
        again = small(**options, n_jobs=n_jobs).fit(source, target).transform(source)
        np.testing.assert_array_equal(again, first)
    assert not np.array_equal(small(**options, random_state=1).fit(source, target).transform(source), first)
    assert est.get_params() == parameters
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (n_threads, dtype)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda est: pickle.loads(pickle.dumps(est))])
def test_copies_answer_alike(fitted, copy_of, tmp_path):
    source, _ = two_clouds(seed=1)
    expected = fitted.transform(source)
    np.testing.assert_array_equal(copy_of(fitted).transform(source), expected)
    joblib.dump(fitted, tmp_path / "flow.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "flow.joblib").transform(source), expected)
    assert not hasattr(clone(fitted), "network_")


@pytest.mark.parametrize(
    ("given", "returned"),
    [("float64", "float64"), ("float32", "float32"), ("int64", "float64"), ("bool", "float64")],
)
def test_dtypes(given, returned):
    rng = np.random.default_rng(0)
    source = rng.integers(0, 2, size=(40, 2)).astype(given)
    est = small().fit(source, source[::-1])
    assert est.transform(source).dtype == returned
    assert est.inverse_transform(source).dtype == returned
    assert est.velocity(source, 0.5).dtype == returned
    assert est.sample(3).dtype == returned


def test_rows_are_transported_one_by_one_and_in_chunks(fitted):
    source, _ = two_clouds(n_source=20_000, seed=1)
    whole = fitted.transform(source)
    np.testing.assert_allclose(fitted.transform(source[-50:]), whole[-50:], rtol=0, atol=1e-12)
    np.testing.assert_allclose(fitted.transform(source[7:8]), whole[7:8], rtol=0, atol=1e-12)


def test_data_frames():
    source, target = (pd.DataFrame(cloud, columns=["a", "b"]) for cloud in two_clouds())
    est = small().set_output(transform="pandas").fit(source, target)
    moved = est.transform(source.set_index(source.index + 5))
    assert list(moved.columns) == ["a", "b"]
    assert moved.index[0] == 5
    assert list(est.get_feature_names_out()) == ["a", "b"]
    assert est.sample(3).shape == (3, 2)
    with pytest.raises(ValueError, match=r"columns \['b', 'a'\]"):
        small().fit(source, target[["b", "a"]])
    with pytest.raises(ValueError, match="feature names"):
        est.transform(source[["b", "a"]])


def test_polars_frames():
    source, target = (pl.DataFrame(cloud, schema=["a", "b"]) for cloud in two_clouds())
    est = small().set_output(transform="polars").fit(source, target)
    moved = est.transform(source)
    assert isinstance(moved, pl.DataFrame)
    np.testing.assert_array_equal(moved.to_numpy(), est.set_output(transform="default").transform(source))


def test_inside_a_pipeline_and_a_search():
    source, target = two_clouds(60, 60)
    pipeline = make_pipeline(StandardScaler(), small())
    assert pipeline.fit_transform(target).shape == (60, 2)
    search = GridSearchCV(small(), {"blur": [0.05, 0.5]}, cv=2, error_score="raise")
    search.fit(source, target)
    assert search.best_params_["blur"] in (0.05, 0.5)


def test_blur_is_a_fraction_of_the_targets_size():
    source, target = two_clouds()
    est = small(blur=0.1).fit(source, target)
    Z = (target - target.mean(0)) / est.model_.space.frame.scale
    squared_distances = np.square(Z[:, None] - Z).sum(-1)
    assert est.blur_ == pytest.approx(0.1 * np.sqrt(squared_distances.mean()))
    pair = small(blur=(0.2, 0.1)).fit(source, target).blur_
    assert pair == pytest.approx((2 * est.blur_, est.blur_))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fit_needs_no_gradient_mode_of_the_caller(mode):
    expected = small().fit(*two_clouds()).transform(two_clouds()[0])
    with mode():
        np.testing.assert_array_equal(small().fit_transform(*two_clouds()), expected)


def test_a_network_of_ones_own():
    source, target = two_clouds()
    for network in (MLP(2, (4,)), lambda event_shape: MLP(*event_shape, (4,))):
        est = small(network=network).fit(source, target)
        assert est.network_.layers[0].out_features == 4
        assert est.network_ is not network


def test_early_stopping_holds_out_rows_and_keeps_the_best():
    source, target = two_clouds(520, 510)
    est = small(max_iter=2000, n_iter_no_change=2, learning_rate=0.05).fit(source, target)
    assert est.n_iter_ < 2000
    steps = est.model_.legs[0].curves.validation_steps
    assert steps[:5] == [0, 10, 20, 30, 40]
    best = np.argmin(est.validation_curve_)
    assert est.model_.n_kept in (0, steps[best])
    # As long as the last clear improvement took, which may be before the best network.
    assert est.n_iter_ == steps[-1] >= max(200, steps[best])
    assert small(early_stopping=False).fit(source, target).validation_curve_ == []


def test_a_collapsed_source_is_warned_about():
    _, target = two_clouds()
    with pytest.warns(UserWarning, match="All source rows are equal") as warned:
        est = small().fit(np.ones((20, 2)), target)
    assert warned[0].filename == __file__
    assert np.isfinite(est.transform(np.ones((3, 2)))).all()


def test_a_collapsed_target_is_warned_about():
    source, _ = two_clouds()
    with pytest.warns(UserWarning, match="All target rows are equal"):
        est = small().fit(source, np.ones((20, 2)))
    np.testing.assert_allclose(est.transform(source), 1, atol=0.2)


def test_unsolved_problems_are_warned_about():
    source, target = two_clouds()
    with pytest.warns(ConvergenceWarning, match="raise blur") as warned:
        small(blur=1e-3, sinkhorn_tol=1e-12).fit(source, target)
    assert warned[0].filename == __file__


def test_problems_that_fail_keep_further_flows_from_being_made(monkeypatch):
    """All five of each flow here: 15 of them are reached with the fourth. The remedies are named."""
    monkeypatch.setattr(_blocks, "_SIZE_AT_ONCE", {"cpu": 1})
    source, target = two_clouds()
    message = r'100.0% of .* only 4 of 20 flows .* set frame="quantile".* raise blur .* or sinkhorn_tol'
    with pytest.warns(ConvergenceWarning, match=message):
        est = small(n_flows=20, flow_batch_size=30, max_iter=40, blur=1e-3, sinkhorn_tol=1e-30, n_steps=5)
        est.set_params(early_stopping=False).fit(source, target)


def test_a_training_that_stops_early_makes_the_flows_that_it_uses(monkeypatch, caplog):
    """After 200 steps of 4 000, 2 + 38 * 199 / 4 000 = 3.9 of 40 flows are due."""
    monkeypatch.setattr(_blocks, "_SIZE_AT_ONCE", {"cpu": 1})
    monkeypatch.setattr(training._EarlyStopping, "look", lambda self, network, n_iter: n_iter >= 200)
    source, target = two_clouds()
    est = small(n_flows=40, flow_batch_size=16, max_iter=4000, verbose=1, early_stopping=True)
    with caplog.at_level(logging.INFO, "sklearn_nsgf"), pytest.warns(UserWarning, match="No network"):
        est.fit(source, target)
    assert est.n_iter_ == 200
    assert caplog.messages[0].startswith("simulated 4 Sinkhorn flows")


@pytest.mark.parametrize(("max_iter", "n_made"), [(10, 10), (3, 8), (100, 40)])
def test_no_more_flows_than_a_training_draws_points(max_iter, n_made, monkeypatch, caplog):
    """Of 32 points each, by batches of 32; eight at least."""
    monkeypatch.setattr(_blocks, "_SIZE_AT_ONCE", {"cpu": 1})
    options = {"n_flows": 40, "flow_batch_size": 32, "batch_size": 32, "early_stopping": False, "verbose": 1}
    with caplog.at_level(logging.INFO, "sklearn_nsgf"):
        small(**options, max_iter=max_iter).fit(*two_clouds())
    assert caplog.messages[0].startswith(f"simulated {n_made} Sinkhorn flows")


def test_whole_samples_make_one_flow(caplog):
    """All flows of 30 to 30 rows are the same; those of 30 of 31 rows are not."""
    for n_target, n_made in ((30, 1), (31, 8)):
        caplog.clear()
        with caplog.at_level(logging.INFO, "sklearn_nsgf"):
            small(n_flows=8, verbose=1, early_stopping=False).fit(*two_clouds(30, n_target))
        assert caplog.messages[0].startswith(f"simulated {n_made} Sinkhorn flow")


@pytest.mark.slow
def test_the_defaults_beat_a_gaussian_map():
    source, target = two_clouds(3000, 3000)
    new_source, new_target = two_clouds(3000, 3000, seed=1)
    est = SinkhornFlowTransport(random_state=0).fit(source, target)
    assert energy_distance(est.transform(new_source), new_target) < 0.01


class StopsAt(MLP):
    """Does as Ctrl-C does at a call in training."""

    def __init__(self, event_shape, last_call):
        super().__init__(*event_shape, (4,))
        self.n_calls, self.last_call = 0, last_call

    def forward(self, t, x):
        self.n_calls += self.training
        if self.n_calls == self.last_call:
            raise KeyboardInterrupt
        return super().forward(t, x)


def test_ctrl_c_leaves_what_was_learnt():
    source, target = two_clouds()
    with pytest.warns(UserWarning, match="interrupted after 49. iterations") as warned:
        est = small(max_iter=1000, warm_start=True, early_stopping=False, network=StopsAt((2,), 500)).fit(
            source, target
        )
    assert warned[0].filename == __file__
    assert est.n_iter_ == 499
    assert energy_distance(est.transform(source), target) < 0.1 * energy_distance(source, target)
    before = est.n_iter_
    est.set_params(max_iter=20).fit(source, target)
    assert est.n_iter_ == before + 20


def test_a_refit_interrupted_at_once_leaves_the_old_fit():
    source, target = two_clouds()
    est = small(max_iter=20).fit(source, target)
    expected = est.transform(source)
    with pytest.raises(KeyboardInterrupt):
        est.set_params(network=lambda event_shape: StopsAt(event_shape, 1)).fit(source, 100 * target)
    np.testing.assert_array_equal(est.transform(source), expected)


def test_warm_start_goes_on():
    source, target = two_clouds()
    options = {"max_iter": 150, "early_stopping": False, "frame": "shift"}
    est = small(**options, warm_start=True).fit(source, target)
    first, loss = est.transform(source), est.loss_curve_[-1]
    est.fit(source, target)
    assert est.n_iter_ == 300
    assert len(est.loss_curve_) == 100
    assert est.loss_curve_[50] < 1.5 * loss < est.loss_curve_[0]
    assert np.abs(est.transform(source) - first).mean() < 0.5
    assert not np.array_equal(est.transform(source), first)
    cold = small(**options).fit(source, target).fit(source, target)
    np.testing.assert_array_equal(cold.transform(source), first)
    # The units stay those of the first fit, whatever comes later.
    scale = est.model_.space.frame.scale.copy()
    est.fit(source, 2 * target)
    np.testing.assert_array_equal(est.model_.space.frame.scale, scale)
    with pytest.raises(ValueError, match="3 features"):
        est.fit(np.ones((20, 3)), np.ones((20, 3)))
    with pytest.raises(ValueError, match="had a source sample, and this one has none: pass X and y"):
        est.fit(target)


def test_a_rolling_pool_learns_as_well():
    source, target = two_clouds()
    est = SinkhornFlowTransport(**{**FAST, "n_flows": 8}, pool_size=2).fit(source, target)
    new_source, new_target = two_clouds(seed=1)
    assert -est.score(new_source, new_target) < 0.02 * energy_distance(new_source, new_target)


class DropoutNetwork(MLP):
    def __init__(self, event_shape):
        super().__init__(*event_shape, (16,))
        self.layers.insert(2, torch.nn.Dropout(0.5))


def under_two_torch_seeds(answer):
    """Answers of a call that leaves torch's generator as it was."""
    answers = []
    for torch_seed in (0, 1):
        torch.manual_seed(torch_seed)
        state = torch.get_rng_state()
        answers.append(answer())
        assert torch.equal(torch.get_rng_state(), state)
    return answers


def test_a_network_that_draws_is_seeded_too():
    source, target = two_clouds()
    moved = under_two_torch_seeds(lambda: small(network=DropoutNetwork).fit(source, target).transform(source))
    np.testing.assert_array_equal(*moved)


def test_networks_that_draw_in_several_threads_are_seeded_too():
    """Their steps alternate."""
    source, target = two_clouds()

    def answer(seed):
        return small(network=DropoutNetwork, random_state=seed).fit(source, target).transform(source)

    state = torch.get_rng_state()
    alone = list(map(answer, range(3)))
    with ThreadPoolExecutor(3) as pool:
        np.testing.assert_array_equal(list(pool.map(answer, range(3))), alone)
    assert torch.equal(torch.get_rng_state(), state)


class CountsThreads(MLP):
    seen: set[int] = set()

    def __init__(self, event_shape, width=16):
        super().__init__(*event_shape, (width,))

    def forward(self, t, x):
        if self.training:
            self.seen.add(torch.get_num_threads())
        return super().forward(t, x)


@pytest.mark.parametrize(("width", "n_inside"), [(16, 1), (200_000, 2)])
def test_a_small_perceptron_trains_in_one_thread(width, n_inside, monkeypatch):
    n_threads = torch.get_num_threads()
    monkeypatch.setattr(CountsThreads, "seen", set())
    torch.set_num_threads(2)
    try:
        small(network=CountsThreads((2,), width), max_iter=2, early_stopping=False).fit(*two_clouds())
        assert (CountsThreads.seen, torch.get_num_threads()) == ({n_inside}, 2)
    finally:
        torch.set_num_threads(n_threads)


class LateNoise(MLP):
    """Draws from its third training step on, and where it is looked at."""

    def __init__(self, event_shape):
        super().__init__(*event_shape, (16,))
        self.n_calls = 0

    def forward(self, t, x):
        self.n_calls += 1
        noise = 0.01 * torch.randn_like(x) if self.n_calls > 2 else 0.0
        return super().forward(t, x) + noise


def test_a_network_that_draws_later_is_seeded_too():
    samples = two_clouds()
    one, other = under_two_torch_seeds(
        lambda: small(network=LateNoise, max_iter=20, early_stopping=True).fit(*samples).network_.state_dict()
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_parameters_changed_after_the_fit_are_checked():
    source, target = two_clouds()
    est = small().fit(source, target)
    for options in ({"n_steps": 0}, {"n_steps": 5, "solver": "dopri5"}):
        est.set_params(**options)
        for call in (lambda: est.sample(2), lambda: est.score(source, target)):
            with pytest.raises(ValueError, match=r"n_steps|dopri5"):
                call()
