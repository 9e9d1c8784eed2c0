"""scikit-learn's callbacks, which need scikit-learn 1.9."""

import numpy as np
import pandas as pd
import pytest
from clouds import two_clouds
from sklearn.model_selection import GridSearchCV

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._learning import checkpoint, learn
from sklearn_nsgf.domains import stack_domains
from sklearn_nsgf.metrics import make_transport_scorer

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9 has no callbacks")

SMALL = {"max_iter": 60, "hidden_layer_sizes": (8,), "early_stopping": False, "random_state": 0}
FLOWS = {"n_flows": 12, "flow_batch_size": 16}
COUPLINGS = {"n_couplings": 4, "coupling_batch_size": 16}
ESTIMATORS = {
    "sinkhorn": SinkhornFlowTransport(**SMALL, **FLOWS),
    "matching": FlowMatchingTransport(**SMALL, **COUPLINGS),
    "direct": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS),
    "predicted": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, transition="predicted"),
}
PHASES = {
    "sinkhorn": ["training"],
    "matching": ["straight flow"],
    "direct": ["training"],
    "predicted": ["training", "time predictor", "straight flow"],
}


class Recorder:
    """Writes down the tasks, and stops a phase after some of its steps."""

    def __init__(self, stops=()):
        self.stops = dict(stops)
        self.begun, self.ended, self.finished = [], [], []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def path(self, context):
        names = [context.task_name]
        while context.parent is not None:
            context = context.parent
            names.append(context.task_name)
        return tuple(reversed(names))

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(self.path(context))

    def on_fit_task_end(self, estimator, context):
        path = self.path(context)
        self.ended.append(path)
        if len(path) == 2:
            self.finished.append((path[1], context.max_subtasks))
        return len(path) == 3 and self.ended.count(path) == self.stops.get(path[1])


@pytest.fixture(params=ESTIMATORS)
def name(request):
    return request.param


def fresh(name, *callbacks, **params):
    return ESTIMATORS[name].__class__(**{**ESTIMATORS[name].get_params(), **params}).set_callbacks(*callbacks)


def test_tasks(name):
    recorder = Recorder()
    fresh(name, recorder).fit(*two_clouds(100, 90))
    assert [phase for phase, _ in recorder.finished] == PHASES[name]
    assert recorder.ended[-1] == ("fit",)
    assert sorted(recorder.begun) == sorted(recorder.ended)
    for phase, n_steps in recorder.finished:
        steps = [path for path in recorder.ended if path[1:2] == (phase,) and len(path) == 3]
        assert len(steps) == n_steps == n_evaluations(name, phase)


class Losses(Recorder):
    """Writes down the curves at every evaluation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "evaluation" and fitted_estimator is not None:
            est = fitted_estimator
            self.seen.append((est.n_iter_, est.loss_curve_, est.validation_curve_))


def test_a_callback_sees_the_losses_so_far(name):
    losses = Losses()
    est = fresh(name, losses, early_stopping=True, validation_fraction=0.5, warm_start=True)
    est.fit(*two_clouds(600, 600))
    assert est.n_iter_ == losses.seen[-1][0]
    n_losses = [len(loss_curve) for _, loss_curve, _ in losses.seen]
    assert n_losses == list(range(1, len(n_losses) + 1))
    for k, (_, loss_curve, validation_curve) in enumerate(losses.seen, 1):
        assert loss_curve == est.loss_curve_[:k]
        assert validation_curve == est.validation_curve_[: len(validation_curve)]
    assert len(est.loss_curve_) == len(n_losses)
    assert len(validation_curve) == len(est.validation_curve_) > 2
    if name != "predicted":
        losses.seen.clear()
        est.fit(*two_clouds(600, 600))
        assert losses.seen[0][0] == 62
        assert len(losses.seen[0][1]) == len(n_losses) + 1


def test_folds_are_the_first_steps_of_a_phase():
    """With few rows. A phase that keeps no network ends with them."""
    recorder = Recorder()
    est = fresh("sinkhorn", recorder, early_stopping=True).fit(*two_clouds(100, 90))
    ((phase, n_steps),) = recorder.finished
    assert (phase, n_steps) == ("training", 5 + 30)
    assert recorder.ended.count(("fit", phase, "evaluation")) == (n_steps if est.model_.n_kept else 5)


@pytest.mark.parametrize("n_folds", [2, 5])
def test_a_callback_that_stops_among_the_folds_leaves_the_start(n_folds):
    """At once, and with a word, however the folds would have decided."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 150, 2))
    target[:, 0] += 8 * rng.choice([-1, 1], 150)
    network = {"hidden_layer_sizes": (32, 32), "learning_rate": 0.02}
    options = {"early_stopping": True, "frame": "linear", **network}
    assert fresh("matching", **options).fit(source, target).model_.n_kept == 60
    recorder = Recorder({"straight flow": n_folds})
    with pytest.warns(UserWarning, match="keeps the start alone, the linear map"):
        est = fresh("matching", recorder, **options).fit(source, target)
    assert est.model_.n_kept == 0
    assert recorder.ended.count(("fit", "straight flow", "evaluation")) == n_folds
    assert sorted(recorder.begun) == sorted(recorder.ended)


def n_evaluations(name, phase):
    """Of 60 steps, or of 15 and 45: every second one, or each if they are up to 50."""
    if name != "predicted":
        return 30
    return 15 if phase == "training" else 45


def modes():
    source, target = two_clouds(60, 50)
    labels = [np.arange(len(each)) % 2 for each in (source, target)]
    X, y, domain = stack_domains(source, target, *labels)
    images = np.random.default_rng(0).integers(0, 255, size=(30, 6, 6)).astype(np.uint8)
    return {
        "two samples": ({}, (source, target), {}),
        "generation": ({}, (target,), {}),
        "stacked": ({}, (X,), {"sample_domain": domain}),
        "couple": ({"label_mode": "couple"}, (X, y), {"sample_domain": domain}),
        "condition": ({"label_mode": "condition"}, (X, y), {"sample_domain": domain}),
        "condition from noise": ({"label_mode": "condition"}, (target, labels[1]), {}),
        "images": ({"max_iter": 2}, (images,), {}),
    }


MODES = modes()


@pytest.mark.parametrize("mode", MODES)
def test_scoring_monitor(name, mode):
    monitor = callback.ScoringMonitor(scoring={"energy": make_transport_scorer()})
    params, samples, metadata = MODES[mode]
    est = fresh(name, monitor, **params).fit(*samples, **metadata)
    log = monitor.get_logs().data
    scores = [row["energy"] for row in log if "energy" in row]
    n_scored = est.max_iter
    if mode != "images":
        n_scored = sum(n_evaluations(name, phase) for phase in PHASES[name] if phase != "time predictor")
    assert len(scores) == n_scored + 1  # and the whole fit
    assert np.isfinite(scores).all()


def test_the_monitor_sees_the_estimator_as_it_is():
    """The last score is that of the fitted estimator, on the first rows of both samples."""
    source, target = two_clouds(60, 50)
    monitor = callback.ScoringMonitor(scoring={"energy": make_transport_scorer()})
    est = fresh("direct", monitor, early_stopping=False).fit(source, target)
    scores = {len(row["task_id_path"]): row["energy"] for row in monitor.get_logs().data}
    assert scores[1] == pytest.approx(est.score(source, target))
    assert scores[3] == pytest.approx(scores[1])


@pytest.mark.parametrize("phase", ["training", "time predictor", "straight flow"])
def test_a_callback_stops_a_phase(phase):
    recorder = Recorder({phase: 3})
    est = fresh("predicted", recorder, early_stopping=False).fit(*two_clouds(100, 90))
    steps = [path[1] for path in recorder.ended if len(path) == 3]
    counts = {each: steps.count(each) for each in PHASES["predicted"]}
    assert counts == {each: n_evaluations("predicted", each) for each in PHASES["predicted"]} | {phase: 3}
    assert [name for name, _ in recorder.finished] == PHASES["predicted"]
    if phase == "training":
        assert est.sinkhorn_flow_.n_iter_ == 3
    assert np.isfinite(est.transform(two_clouds()[0])).all()


def test_listening_changes_nothing(name):
    source, target = two_clouds(100, 90)
    expected = fresh(name).fit(source, target).transform(source)
    heard = fresh(name, Recorder()).fit(source, target).transform(source)
    np.testing.assert_array_equal(heard, expected)


def test_tasks_that_begin_also_end_where_training_stops_early(name):
    recorder = Recorder()
    fresh(name, recorder, max_iter=200, early_stopping=True, n_iter_no_change=1).fit(*two_clouds(60, 50))
    assert sorted(recorder.begun) == sorted(recorder.ended)


def test_tasks_of_a_fit_that_goes_on_from_a_checkpoint(name, tmp_path, monkeypatch):
    """All its phases, those that are done with a single step."""
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    source, target = two_clouds(100, 90)
    last = PHASES[name][-1]
    with monkeypatch.context() as context, pytest.warns(UserWarning, match="interrupted after"):
        context.setattr(Recorder, "on_fit_task_end", interrupted_at(last, 5))
        fresh(name, Recorder(), checkpoint=tmp_path / "fit", early_stopping=False).fit(source, target)
    recorder = Recorder()
    fresh(name, recorder, checkpoint=tmp_path / "fit", early_stopping=False).fit(source, target)
    assert sorted(recorder.begun) == sorted(recorder.ended)
    assert [phase for phase, _ in recorder.finished] == PHASES[name]
    steps = [path[1] for path in recorder.ended if len(path) == 3]
    n_steps = [steps.count(phase) for phase in PHASES[name]]
    assert n_steps == [1] * (len(n_steps) - 1) + [n_evaluations(name, last) - 4]


def interrupted_at(phase, n_steps):
    """As Ctrl-C would, when so many steps of a phase end."""
    n_ended = 0

    def on_fit_task_end(self, estimator, context):
        nonlocal n_ended
        n_ended += self.path(context)[1:] == (phase, "evaluation")
        if n_ended == n_steps:
            n_ended += 1
            raise KeyboardInterrupt

    return on_fit_task_end


def test_a_frame_is_scored_without_a_warning(name):
    """Warnings are errors here."""
    frames = [pd.DataFrame(cloud, columns=["a", "b"]) for cloud in two_clouds(40, 30)]
    monitor = callback.ScoringMonitor(scoring={"energy": make_transport_scorer()})
    est = fresh(name, monitor, max_iter=2).fit(*frames)
    assert np.isfinite(est.score(*frames))


def test_partial_fit_has_the_same_tasks(name):
    recorder = Recorder()
    est = fresh(name, recorder)
    for _ in range(2):
        est.partial_fit(*two_clouds(60, 50))
    assert [phase for phase, _ in recorder.finished] == 2 * PHASES[name]


def test_progress_bar_in_a_search(capsys):
    pytest.importorskip("rich")
    source, target = two_clouds(60, 60)
    search = GridSearchCV(fresh("predicted", max_iter=4), {"blur": [0.1, 0.3]}, cv=2)
    search.set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(source, target)
    printed = capsys.readouterr().out
    for phase in PHASES["predicted"]:
        assert phase in printed


def test_a_monitor_in_a_search():
    source, target = two_clouds(60, 60)
    monitor = callback.ScoringMonitor(scoring={"energy": make_transport_scorer()})
    est = fresh("sinkhorn", monitor, max_iter=4)
    GridSearchCV(est, {"blur": [0.1, 0.3]}, cv=2).fit(source, target)
    (log,) = monitor.get_logs(select="all")
    # Four fits and that of the best one, each with four evaluations and its end.
    assert len(log.data) == 5 * (4 + 1)
    assert np.isfinite([row["energy"] for row in log.data]).all()


def test_a_phase_that_is_interrupted_at_once_ends(monkeypatch):
    """Ctrl-C before the first step of the straight flow: the fit ends well, and so do all its tasks."""
    trained = learn.train_network

    def stopping(network, *arguments, **options):
        if recorder.begun.count(("fit", "straight flow")):
            raise KeyboardInterrupt
        return trained(network, *arguments, **options)

    monkeypatch.setattr(learn, "train_network", stopping)
    recorder = Recorder()
    with pytest.warns(UserWarning, match="interrupted after"):
        fresh("predicted", recorder).fit(*two_clouds(100, 90))
    assert recorder.finished[-1][0] == "straight flow"
    assert sorted(recorder.begun) == sorted(recorder.ended)
