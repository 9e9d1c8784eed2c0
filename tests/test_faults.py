"""What goes wrong around a fit: signals, other processes, networks, callbacks. Nothing may hang."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from clouds import two_clouds
from joblib.externals.loky.process_executor import BrokenProcessPool
from killed_fits import COUPLINGS, ESTIMATORS, FLOWS, SMALL, forked
from sklearn.base import clone

from sklearn_nsgf import NSGFPlusPlus, SinkhornFlowTransport, _base
from sklearn_nsgf._learning import checkpoint
from sklearn_nsgf._learning.held_out import HeldOutDistance
from sklearn_nsgf.flow import SinkhornFlows
from sklearn_nsgf.networks import MLP

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has other signals and no fork")

SAMPLES = two_clouds(100, 90)
# Seconds on a machine that is busy with other things: each of these tests takes a few.
LIMIT = 240


@pytest.fixture(autouse=True)
def time_limit():
    def fail(*arguments):
        raise TimeoutError(f"This took more than {LIMIT} seconds.")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["new", "fitted"])
def est(request):
    """An estimator, and one that was fitted before."""
    est = SinkhornFlowTransport(**{**SMALL, "early_stopping": True}, **FLOWS)
    return est if request.param == "new" else est.fit(SAMPLES[0] + 5, SAMPLES[1])


@pytest.fixture
def stays(est):
    """Check that the estimator is as it was."""
    before = dict(vars(est))

    def check():
        assert vars(est) == before
        if "model_" in before:
            assert np.isfinite(est.transform(SAMPLES[0])).all()

    return check


def test_a_killed_fit_goes_on_to_the_same_bytes(tmp_path):
    """Killed at random moments. What is left is a whole file, and at most one that a later fit removes."""
    (tmp_path / "temporary").mkdir()
    answer = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_fits.py"), tmp_path],
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
        check=True,
        capture_output=True,
        timeout=LIMIT,
    ).stdout
    results = json.loads(answer)
    assert list(results) == list(ESTIMATORS)
    left = [names for result in results.values() for names in result["left"]]
    assert ["fit"] in left
    assert all(set(names) <= {"fit", "fit.part"} for names in left)
    for result in results.values():
        assert result["is_same"]
        assert result["left_in_the_end"] == []
        assert result["longest_delay"] < 10
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.fixture(autouse=True)
def no_folds(monkeypatch):
    """The samples are small, to be quick, and not meant to be few rows."""
    monkeypatch.setattr(_base, "CROSS_VALIDATED_ROWS", 0)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A process that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c_at(owner, name, n_calls, monkeypatch):
    """Send the signal at a call of a method, which may be in another thread; return the calls so far."""
    method, calls = getattr(owner, name), []

    def signalling(*arguments, **options):
        calls.append(name)
        if len(calls) == n_calls:
            signal.raise_signal(signal.SIGINT)
        return method(*arguments, **options)

    monkeypatch.setattr(owner, name, signalling)
    return calls


EARLY = {
    "checks": (SinkhornFlowTransport, "_new_space", 1),
    "the order of the rows": (SinkhornFlowTransport, "_strata", 1),
    "the first block": (SinkhornFlows, "_draw", 1),
    "the first look": (HeldOutDistance, "__call__", 1),
    "the first step": (MLP, "forward", 1),
}
LATER = {
    "a later block": (SinkhornFlows, "_draw", 5),
    "a later look": (HeldOutDistance, "__call__", 9),
    "a later step": (MLP, "forward", 40),
    "a write": (checkpoint.Checkpoint, "_write", 9),
}


@pytest.mark.parametrize("place", EARLY)
def test_ctrl_c_before_the_first_step_is_raised(place, est, stays, monkeypatch):
    calls = ctrl_c_at(*EARLY[place], monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        est.fit(*SAMPLES)
    assert len(calls) == EARLY[place][2]
    stays()


@pytest.mark.parametrize("place", LATER)
def test_ctrl_c_keeps_what_was_learnt_and_the_file(place, est, tmp_path, monkeypatch):
    """The same fit goes on from the file, to the same bytes."""
    est.set_params(pool_size=3, n_flows=40)
    expected = clone(est).fit(*SAMPLES)
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    est.set_params(checkpoint=tmp_path / "fit")
    with monkeypatch.context() as context:
        ctrl_c_at(*LATER[place], context)
        with pytest.warns(UserWarning, match="interrupted after"):
            est.fit(*SAMPLES)
    assert 0 < est.n_iter_ < expected.n_iter_
    assert np.isfinite(est.transform(SAMPLES[0])).all()
    assert os.listdir(tmp_path) == ["fit"]
    est.fit(*SAMPLES)
    assert est.loss_curve_ == expected.loss_curve_
    np.testing.assert_array_equal(est.transform(SAMPLES[0]), expected.transform(SAMPLES[0]))
    assert os.listdir(tmp_path) == []


# Calls in the first of five folds of 40 steps, of its judge, in the second fold, and in that on all rows.
FOLDS = {
    "first": (MLP, "forward", 8),
    "judge": (HeldOutDistance, "__call__", 2),
    "second": (MLP, "forward", 60),
    "all": (MLP, "forward", 265),
}


@pytest.mark.parametrize("place", FOLDS)
def test_ctrl_c_in_a_fold_keeps_the_start(place, est, monkeypatch):
    """What was learnt is the network of all rows, as far as it came, if that had begun."""
    monkeypatch.setattr(_base, "CROSS_VALIDATED_ROWS", 500)
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 150, 2))
    target[:, 0] += 8 * rng.choice([-1, 1], 150)
    est.set_params(frame="linear", max_iter=40, hidden_layer_sizes=(32, 32), learning_rate=0.02)
    start = clone(est).set_params(max_iter=0).fit(source, target).transform(source)
    assert est.fit(source, target).model_.n_kept == est.n_iter_ == 40
    with monkeypatch.context() as context:
        ctrl_c_at(*FOLDS[place], context)
        kept = "what was learnt so far" if place == "all" else "the start alone, the linear map"
        with pytest.warns(UserWarning, match=f"interrupted after .* keeps {kept}"):
            est.fit(source, target)
    assert 0 < est.n_iter_ <= 40
    assert np.allclose(est.transform(source), start, rtol=0, atol=1e-9) == (place != "all")


class BreaksDown(MLP):
    """Returns NaN from some call on."""

    def __init__(self, event_shape):
        super().__init__(*event_shape, (4,))
        self.n_calls = 0

    def forward(self, t, x):
        self.n_calls += self.training
        return super().forward(t, x) * (float("nan") if self.n_calls > 50 else 1.0)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_network_that_breaks_down_is_an_error(early_stopping, est, stays):
    est.set_params(network=BreaksDown, early_stopping=early_stopping)
    with pytest.raises(FloatingPointError, match=r"not finite after 5. iterations. Lower learning_rate"):
        est.fit(*SAMPLES)
    est.set_params(network=None, early_stopping=True)
    stays()


def test_a_network_that_breaks_down_in_the_second_phase_is_an_error():
    """There the next minibatch comes from it."""
    est = NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, network=BreaksDown)
    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        est.fit(*SAMPLES)
    assert not hasattr(est, "model_")


class Fails:
    """A callback that fails at the end of some task."""

    def __init__(self, n_tasks):
        self.n_left = n_tasks

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.n_left -= 1
        if self.n_left == 0:
            raise ArithmeticError("from the callback")


@pytest.mark.parametrize("n_tasks", [1, 20])
def test_an_error_of_a_callback_comes_out(n_tasks, est, stays):
    pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9 has no callbacks")
    before = dict(vars(est))
    est.set_callbacks(Fails(n_tasks))
    with pytest.raises(ArithmeticError, match="from the callback"):
        est.fit(*SAMPLES)
    for name in set(vars(est)) - set(before):
        delattr(est, name)
    stays()


# Python 3.12 warns of what is tested here.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_transforms_and_fits(tmp_path):
    """Also after torch has used threads, which the new process does not have."""
    est = SinkhornFlowTransport(**SMALL, **FLOWS).fit(*SAMPLES)
    rows = np.random.default_rng(0).normal(size=(40_000, 2))

    def use():
        signal.alarm(60)
        np.save(tmp_path / "moved", est.transform(rows))
        np.save(tmp_path / "refitted", clone(est).fit(*SAMPLES).transform(rows))

    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = est.transform(rows)
        _, status = os.waitpid(forked(use), 0)
    finally:
        torch.set_num_threads(n_threads)
    assert status == 0
    for name in ("moved", "refitted"):
        # Products differ in bits between thread counts.
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("est", ["fitted"], indirect=True)
def test_a_killed_worker_ends_the_fit_at_most(est, stays, monkeypatch):
    """joblib starts another one, or raises; the next fit is as ever."""
    expected = clone(est).fit(*SAMPLES).transform(SAMPLES[0])
    simulate, n_calls = SinkhornFlows.__call__, 0

    def killing(self, seeds):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 2:
            threading.Timer(0.02, os.kill, (workers[0], signal.SIGKILL)).start()
        return simulate(self, seeds)

    with joblib.parallel_config(backend="loky", n_jobs=2):
        workers = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(2))
        monkeypatch.setattr(SinkhornFlows, "__call__", killing)
        try:
            est.fit(*SAMPLES)
        except BrokenProcessPool:
            stays()
        else:
            np.testing.assert_array_equal(est.transform(SAMPLES[0]), expected)
        time.sleep(0.1)
        np.testing.assert_array_equal(est.fit(*SAMPLES).transform(SAMPLES[0]), expected)
    assert n_calls > 2
