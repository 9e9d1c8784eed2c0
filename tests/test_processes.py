"""Training in several processes that torch.distributed joins."""

import re
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import os
import sys
import numpy as np
import torch
from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._learning.processes import processes
from sklearn_nsgf._learning.training import train_network
from sklearn_nsgf._torch import RandomStream
from sklearn_nsgf.flow import PathSample
from sklearn_nsgf.networks import make_network

rank, size, path, result = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if size > 1:
    store = torch.distributed.FileStore(path, size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
answers = {}


def train(batch_size):
    step = iter(range(1000))

    def draw(n_points):
        generator = torch.Generator().manual_seed(next(step))
        t, x, v = (torch.rand(batch_size, *shape, generator=generator) for shape in ((), (2,), (2,)))
        mine = slice(rank * -(-batch_size // size), None) if rank else slice(n_points)
        return PathSample(t[mine], x[mine], v[mine])

    network = make_network((2,), hidden_layer_sizes=(16,), seed=0)
    options = {"max_iter": 60, "learning_rate": 0.01, "stream": RandomStream(0)}
    result = train_network(network, draw, batch_size=batch_size, **options)
    answers[f"loss {batch_size}"] = np.array(result.curves.loss)
    weights = [parameter.detach().flatten() for parameter in result.network.parameters()]
    answers[f"weights {batch_size}"] = torch.cat(weights).numpy()


# Of few rows a fold is the first step of a phase.
class StopsAfterOneStep:
    def setup(self, estimator, context):
        pass

    teardown = on_fit_task_begin = setup

    def on_fit_task_end(self, estimator, context):
        return context.parent is not None and context.parent.parent is not None


for batch_size in (16, 15):
    train(batch_size)

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) ** 3 + 4
small = {"max_iter": 200, "batch_size": 64, "hidden_layer_sizes": (32, 32), "random_state": 0}
small["verbose"] = 1
flows, couplings = {"n_flows": 4, "flow_batch_size": 64}, {"n_couplings": 8, "coupling_batch_size": 64}
for name, est in {
    "sinkhorn": SinkhornFlowTransport(**small, **flows, early_stopping=True),
    "matching": FlowMatchingTransport(**small, **couplings, early_stopping=False),
    "direct": NSGFPlusPlus(**small, **flows, **couplings, early_stopping=False),
    "predicted": NSGFPlusPlus(**small, **flows, **couplings, transition="predicted"),
    "noise": FlowMatchingTransport(**{**small, "random_state": None}, **couplings, early_stopping=False),
}.items():
    est.fit(*(Y,) if name == "noise" else (X, Y))
    answers[name] = est.sample(20, random_state=0) if name == "noise" else est.transform(X)
    if name == "sinkhorn":
        answers["looks"] = np.array(est.validation_curve_)

if size > 1:
    for name, samples, params in (
        ("rows", (X + rank, Y), {}),
        ("batch", (X, Y), {"batch_size": 1}),
        ("frame", (X.reshape(-1, 2, 1), Y.reshape(-1, 2, 1)), {"frame": "quantile"}),
    ):
        try:
            FlowMatchingTransport(**{**small, **couplings, **params}).fit(*samples)
        except ValueError as error:
            answers[name] = np.array(str(error))
    stopped = NSGFPlusPlus(**{**small, "verbose": 0}, **flows, **couplings, early_stopping=True)
    if rank == 0 and hasattr(stopped, "set_callbacks"):
        stopped.set_callbacks(StopsAfterOneStep())
    stopped.fit(X[:60], Y[:60])
    answers["stopped"], answers["seen"] = stopped.transform(X), stopped.validation_curve_
    assert processes().is_first == (rank == 0)
np.savez(result, **answers)
if size > 1:
    # A connection that one closes can end a wait of the other: they part by the file. And gloo has threads
    # that can outlive, while Python ends, what they use.
    store.set(f"done {rank}", "")
    store.wait(["done 0", "done 1"])
    sys.stdout.flush()
    os._exit(0)
"""


SIMULATED, TRAINED, KEPT, NOT_KEPT = (
    "simulated .*\n",
    r"\w+ trained .*\n",
    "it keeps .*\n",
    r"\w+ keeps no .*\n",
)
# Of the five estimators; legs that hold rows out keep a network or not.
LINES = re.compile(
    f"({SIMULATED}{TRAINED}{KEPT}|{NOT_KEPT})"
    f"{TRAINED}"
    f"{SIMULATED}{TRAINED}"
    f"({SIMULATED}{TRAINED}{KEPT}|{NOT_KEPT})trained the time .*\n({TRAINED}{KEPT}|{NOT_KEPT})"
    f"{TRAINED}"
)


def run(folder, size):
    """The answers of each of so many processes."""
    store, results = str(folder / f"store{size}"), [folder / f"{size}-{k}.npz" for k in range(size)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(k), str(size), store, str(results[k])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for k in range(size)
    ]
    try:
        written = [process.communicate(timeout=200) for process in started]
    finally:
        for process in started:
            process.kill()
    ends = [
        (process.returncode, errors.decode()[-3000:])
        for process, (_, errors) in zip(started, written, strict=True)
    ]
    assert not any(code for code, _ in ends), ends
    return [
        dict(np.load(each), printed=out.decode()) for each, (out, _) in zip(results, written, strict=True)
    ]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    return run(folder, 1)[0], run(folder, 2)


@pytest.mark.parametrize("batch_size", [16, 15])
def test_two_processes_train_as_one_does_on_the_same_batches(answers, batch_size):
    """Also where their shares differ."""
    alone, both = answers
    for each in both:
        np.testing.assert_allclose(
            each[f"weights {batch_size}"], alone[f"weights {batch_size}"], rtol=0, atol=1e-4
        )
    if batch_size == 16:
        np.testing.assert_allclose(both[0]["loss 16"], alone["loss 16"], rtol=1e-3)


@pytest.mark.parametrize("name", ["sinkhorn", "looks", "matching", "direct", "predicted", "noise"])
def test_all_processes_learn_the_same(answers, name):
    _, (first, second) = answers
    np.testing.assert_array_equal(first[name], second[name])
    assert np.isfinite(first[name]).all()


def test_the_first_process_alone_speaks(answers):
    alone, (first, second) = answers
    for answer in (alone, first):
        assert LINES.fullmatch(answer["printed"])
    assert second["printed"] == ""


def test_a_callback_of_the_first_process_stops_all_among_the_folds(answers):
    pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9 has no callbacks")
    _, (first, second) = answers
    np.testing.assert_array_equal(first["stopped"], second["stopped"])
    assert not len(first["seen"]) and not len(second["seen"])


@pytest.mark.parametrize("name", ["matching", "direct"])
def test_what_they_learn_is_as_good(answers, name):
    """Different batches, the same flow, up to what so few steps leave to chance."""
    alone, (first, _) = answers
    assert np.abs(first[name] - alone[name]).mean() < 0.3
    assert np.abs(first[name] - alone[name]).max() > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows", "different samples"),
        ("batch", "divided among 2 processes"),
        ("frame", "frame='quantile' is for rows"),
    ],
)
def test_errors_reach_all_processes(answers, name, message):
    for each in answers[1]:
        assert message in str(each[name])
