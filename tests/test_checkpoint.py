"""The file that keeps a fit. `test_faults` has the processes that are killed."""

import errno
import os
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from clouds import two_clouds
from killed_fits import COUPLINGS, ESTIMATORS, FLOWS, SMALL
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._learning import checkpoint
from sklearn_nsgf.networks import MLP

SAMPLES = two_clouds(100, 90)


class Killed(BaseException):
    """Ends a fit as a kill would, and leaves the file."""


class Dropping(MLP):
    """Draws from torch's global generator, and counts in a buffer."""

    def __init__(self, event_shape):
        super().__init__(*event_shape, (8,))
        self.dropout = torch.nn.Dropout(0.3)
        self.register_buffer("n_calls", torch.zeros(()))

    def forward(self, t, x):
        self.n_calls += self.training
        return super().forward(t, self.dropout(x))


IMAGES = np.random.default_rng(0).integers(0, 255, size=(20, 6, 6)).astype(np.uint8)
CASES = {
    **{name: (est, SAMPLES) for name, est in ESTIMATORS.items()},
    "all blocks at once": (SinkhornFlowTransport(**SMALL, **FLOWS), SAMPLES),
    "early stopping": (
        NSGFPlusPlus(**SMALL | {"early_stopping": True, "n_iter_no_change": 3}, **FLOWS, **COUPLINGS),
        SAMPLES,
    ),
    "dropout": (SinkhornFlowTransport(**SMALL, **FLOWS, network=Dropping), SAMPLES),
    "classes": (
        FlowMatchingTransport(**SMALL, **COUPLINGS, label_mode="condition"),
        (SAMPLES[1], np.arange(90) % 3),
    ),
    "images": (NSGFPlusPlus(**{**SMALL, "max_iter": 3}, **FLOWS, **COUPLINGS), (IMAGES,)),
    "compiled": (SinkhornFlowTransport(**SMALL, **FLOWS, compile=True), SAMPLES),
}
# torch.compile needs a C++ compiler on a CPU, takes long, and calls what torch has deprecated.
COMPILED = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def at_every_evaluation(monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "fit"


@pytest.fixture
def kill_after(monkeypatch):
    """Say after how many states are written the next fit ends."""
    write = checkpoint.Checkpoint._write

    def prepare(n_states):
        def counted(self, content):
            nonlocal n_states
            write(self, content)
            n_states -= 1
            if n_states == 0:
                raise Killed

        monkeypatch.setattr(checkpoint.Checkpoint, "_write", counted)

    return prepare


def killed(est, *samples, method="fit"):
    with pytest.raises(Killed):
        getattr(est, method)(*samples)
    return est


def answer(est):
    leg = est.model_.legs[-1]
    weights = [tensor.numpy().tobytes() for tensor in leg.network.state_dict().values()]
    return weights, est.n_iter_, leg.curves, est.sample(20, random_state=0).tobytes()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=COMPILED if name == "compiled" else ()) for name in CASES]
)
def test_a_fit_goes_on_to_the_same_bytes(name, file, kill_after):
    """Killed several times in a row; with three networks, in each of them."""
    model, samples = CASES[name]
    expected = answer(clone(model).fit(*samples))
    est = clone(model).set_params(checkpoint=str(file))
    for n_states in (1,) if name == "images" else (7, 30, 60) if name == "predicted" else (3, 8, 9):
        kill_after(n_states)
        killed(est, *samples)
        assert file.exists()
    kill_after(0)
    assert answer(est.fit(*samples)) == expected
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_fit_that_goes_on_from_another_one(method, file, kill_after):
    source, target = SAMPLES
    options = {**SMALL, **FLOWS, "max_iter": 40, "warm_start": True}
    expected, est = (getattr(SinkhornFlowTransport(**options), method)(source, target) for _ in range(2))
    expected = answer(getattr(expected, method)(source + 1, target))
    est.set_params(checkpoint=file)
    kill_after(9)
    killed(est, source + 1, target, method=method)
    with pytest.raises(ValueError, match="differs in the fit before"):
        getattr(SinkhornFlowTransport(**options, checkpoint=file), method)(source + 1, target)
    assert answer(getattr(est, method)(source + 1, target)) == expected


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)], ids=["none", "instance"])
def test_the_file_keeps_the_seed(random_state, file, kill_after):
    est = SinkhornFlowTransport(**{**SMALL, **FLOWS, "random_state": random_state}, checkpoint=file)
    kill_after(5)
    killed(est, *SAMPLES)
    kept = file.read_bytes()
    first = answer(est.fit(*SAMPLES))
    file.write_bytes(kept)
    assert answer(est.fit(*SAMPLES)) == first
    assert answer(est.fit(*SAMPLES)) != first


OTHERS = {
    "learning_rate": ({"learning_rate": 0.1}, SAMPLES),
    "hidden_layer_sizes": ({"hidden_layer_sizes": (9,)}, SAMPLES),
    "blur, step_size": ({"blur": (0.3, 0.1), "step_size": np.full(5, 0.5)}, SAMPLES),
    "random_state": ({"random_state": 1}, SAMPLES),
    "network": ({"network": Dropping}, SAMPLES),
    "network ": ({"network": MLP(2, (8,))}, SAMPLES),
    "the source sample": ({}, (SAMPLES[0] + 1e-9, SAMPLES[1])),
    "the source sample, the target sample": ({}, (SAMPLES[0][:-1], SAMPLES[1].astype(np.float32))),
}


@pytest.mark.parametrize("names", OTHERS)
def test_the_file_of_another_fit_is_an_error(names, file, kill_after):
    est = SinkhornFlowTransport(**SMALL, **FLOWS, checkpoint=file)
    kill_after(5)
    killed(est, *SAMPLES)
    kept = file.read_bytes()
    params, samples = OTHERS[names]
    with pytest.raises(ValueError, match=f"which differs in {names.strip()}. To go on") as error:
        clone(est).set_params(**params).fit(*samples)
    assert re.search("remove the file or name another one", str(error.value))
    assert file.read_bytes() == kept
    est.set_params(verbose=1, n_jobs=2, warm_start=True).fit(*SAMPLES)


class Creates:
    """Creates a file when it is loaded by a pickle."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("content", ["nothing", "text", "code", "tensor"])
def test_a_file_that_is_no_checkpoint_is_an_error_and_stays(content, file, tmp_path):
    if content == "code":
        torch.save({"fit": Creates(tmp_path / "created")}, file)
    elif content == "tensor":
        torch.save(torch.zeros(3), file)
    else:
        file.write_text("" if content == "nothing" else "a,b\n1,2\n")
    kept = file.read_bytes()
    with pytest.raises(ValueError, match="not a checkpoint"):
        SinkhornFlowTransport(**SMALL, **FLOWS, checkpoint=file).fit(*SAMPLES)
    assert file.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_has_to_be_there(file):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        SinkhornFlowTransport(checkpoint=file / "fit").fit(*SAMPLES)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder: expected a file"):
        SinkhornFlowTransport(checkpoint=tmp_path).fit(*SAMPLES)


def test_a_path_is_a_path():
    with pytest.raises(ValueError, match="'checkpoint' parameter"):
        SinkhornFlowTransport(checkpoint=3).fit(*SAMPLES)


def test_a_short_fit_writes_nothing(file, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint.Checkpoint, "_write", None)
    SinkhornFlowTransport(**{**SMALL, "max_iter": 20}, **FLOWS, checkpoint=file).fit(*SAMPLES)


def test_what_was_left_half_written_is_removed(file):
    file.with_name("fit.part").write_text("half")
    SinkhornFlowTransport(**{**SMALL, "max_iter": 20}, **FLOWS, checkpoint=file).fit(*SAMPLES)
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_older_file_and_the_fit_goes_on(function, file, monkeypatch, kill_after):
    expected = answer(SinkhornFlowTransport(**SMALL, **FLOWS).fit(*SAMPLES))
    est = SinkhornFlowTransport(**SMALL, **FLOWS, checkpoint=file)
    kill_after(5)
    killed(est, *SAMPLES)
    kept, removed = file.read_bytes(), []

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def remove(self):
        removed.append((file.read_bytes(), os.listdir(file.parent)))
        file.unlink()

    monkeypatch.setattr(os, function, full)
    monkeypatch.setattr(checkpoint.Checkpoint, "remove", remove)
    with pytest.warns(UserWarning, match="not written: .*No space left.* stays as it was") as warned:
        est.fit(*SAMPLES)
    assert {warning.filename for warning in warned} == {__file__}
    assert removed == [(kept, ["fit"])]
    assert answer(est) == expected


def test_sinkhorn_problems_are_counted_on(file, kill_after):
    """The warning is the same, also where the flows of a phase are not made again."""
    params = {**SMALL, **FLOWS, **COUPLINGS, "transition": "predicted"}
    params |= {"n_flows": 2, "n_flow_steps": 2, "max_iter": 60, "sinkhorn_tol": 1e-12}
    with pytest.warns(ConvergenceWarning) as expected:
        NSGFPlusPlus(**params).fit(*SAMPLES)
    for n_states in (5, 30):  # in the first phase and in the second
        est = NSGFPlusPlus(**params, checkpoint=file)
        kill_after(n_states)
        with warnings.catch_warnings(action="ignore"):
            killed(est, *SAMPLES)
        kill_after(0)
        with pytest.warns(ConvergenceWarning) as warned:
            est.fit(*SAMPLES)
        assert [str(each.message) for each in warned] == [str(each.message) for each in expected]
