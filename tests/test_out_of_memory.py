"""What does not fit into a GPU's memory, on a CPU: the error of torch is raised beyond a bound."""

import math

import numpy as np
import pytest
import torch
from clouds import two_clouds
from sklearn.base import clone
from torch import nn

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._torch import Chunks, OutOfMemoryError
from sklearn_nsgf.flow import ArraySampler, GaussianSampler, SinkhornFlows, TrajectoryPool, _blocks

SMALL = {"max_iter": 4, "early_stopping": False, "random_state": 0}
FLOWS = {"n_flows": 2, "flow_batch_size": 32}
COUPLINGS = {"n_couplings": 2, "coupling_batch_size": 300}
WARNING = "The GPU's memory holds only {} at a time"


class Limits:
    """Rows that a network can take at a time, in training and afterwards."""

    in_training = afterwards = math.inf


class Drift(nn.Module):
    """The bits of an answer do not depend on the other rows, as they can with matrix products."""

    def __init__(self, event_shape):
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.ones(event_shape)) for _ in range(2))

    def forward(self, t, x):
        if len(x) > (Limits.in_training if self.training else Limits.afterwards):
            raise OutOfMemoryError("CUDA out of memory.")
        return self.scale * x + self.shift * t[:, None]


@pytest.fixture
def limits(monkeypatch):
    return lambda **values: [monkeypatch.setattr(Limits, name, value) for name, value in values.items()]


@pytest.fixture(scope="module")
def fitted():
    return SinkhornFlowTransport(**SMALL, **FLOWS, network=Drift).fit(*two_clouds())


ANSWERS = {
    "transform": lambda est, X: est.transform(X),
    "inverse_transform": lambda est, X: est.inverse_transform(X),
    "path": lambda est, X: est.integrate(X, return_path=True),
    "velocity": lambda est, X: est.velocity(X, np.linspace(0, 1, len(X))),
    "sample": lambda est, X: est.sample(100, random_state=0),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("most", [1, 12, 99])
def test_smaller_chunks_give_the_same_bytes(name, most, fitted, limits):
    X, _ = two_clouds(100)
    expected = ANSWERS[name](fitted, X)
    limits(afterwards=most)
    with pytest.warns(UserWarning, match=WARNING.format(r"\d+ rows")) as record:
        found = ANSWERS[name](fitted, X)
    np.testing.assert_array_equal(found, expected)
    assert len(record) == 1
    assert record[0].filename == __file__


def test_not_even_one_row(fitted, limits):
    X, _ = two_clouds(100)
    expected = fitted.transform(X)
    limits(afterwards=0)
    with pytest.raises(OutOfMemoryError, match="Not even one row fits: free memory there, or"):
        fitted.transform(X)
    limits(afterwards=100)
    np.testing.assert_array_equal(fitted.transform(X), expected)


def test_a_size_that_did_not_fit_is_not_tried_again():
    tried = []

    def action(part):
        tried.append(part.stop - part.start)
        if tried[-1] > 3:
            raise OutOfMemoryError
        return list(range(20))[part]

    chunks = Chunks("numbers", "")
    with pytest.warns(UserWarning, match=r"only 2 numbers at a time, instead of 8"):
        assert np.concatenate(chunks(action, 20, 8)).tolist() == list(range(20))
    assert tried == [8, 4, *[2] * 10]
    assert np.concatenate(chunks(action, 20, 8)).tolist() == list(range(20))
    assert tried[12:] == [2] * 10


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        Chunks("numbers", "")(lambda part: 1 / 0, 4, 4)


@pytest.fixture
def at_most(monkeypatch):
    """Limits the flows that can be simulated side by side."""
    simulate = _blocks.particle_flow

    def set_most(most):
        def limited(x, y, **options):
            if len(x) > most:
                raise OutOfMemoryError("CUDA out of memory.")
            return simulate(x, y, **options)

        monkeypatch.setattr(_blocks, "particle_flow", limited)

    return set_most


def flows():
    target = np.random.default_rng(0).uniform(size=(50, 2)).astype(np.float32)
    options = {"n_particles": 16, "blur": 0.1, "n_steps": 3, "n_jobs": 1}
    return SinkhornFlows(GaussianSampler([1.0, 1.0]), ArraySampler(target), **options)


@pytest.mark.parametrize("most", [1, 4])
def test_flows_are_those_of_smaller_groups(most, at_most, monkeypatch):
    maker = flows()
    seeds = np.random.SeedSequence(0).spawn(16)
    with monkeypatch.context() as patch:
        patch.setattr(_blocks, "_SIZE_AT_ONCE", {"cpu": most * 16 * (16 + 4)})
        assert flows().n_at_once == most
        expected = flows()(seeds)
    at_most(most)
    with pytest.warns(UserWarning, match=WARNING.format(f"{most} flows")):
        found = maker(seeds)
    assert torch.equal(found, expected)
    assert maker.n_problems == 16 * 3
    # No second warning, as there is no second try of what was too large.
    assert torch.equal(maker(seeds), expected)


def test_not_even_one_flow(at_most):
    at_most(0)
    with pytest.raises(OutOfMemoryError, match="Not even one flow fits: lower n_particles"):
        TrajectoryPool(flows(), n_blocks=4, seed=0).fill()


@pytest.mark.parametrize(
    "est",
    [
        SinkhornFlowTransport(**SMALL, **FLOWS),
        FlowMatchingTransport(**SMALL, **COUPLINGS),
        NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS),
        NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, transition="predicted"),
    ],
    ids=["sinkhorn", "matching", "direct", "predicted"],
)
def test_batches_of_a_training_are_not_split(est, limits):
    """The error passes with advice, and the estimator stays what it was."""
    est = clone(est).set_params(network=Drift)
    source, target = two_clouds()
    est.fit(source, target)
    expected, model = est.transform(source), est.model_
    limits(in_training=255)
    with pytest.raises(OutOfMemoryError, match=r"CUDA out of memory\.\n.* lower batch_size or pool_size, or"):
        est.fit(source + 1, target)
    assert est.model_ is model
    np.testing.assert_array_equal(est.transform(source), expected)
    est.set_params(batch_size=255).fit(source, target)


def test_a_fit_whose_second_phase_starts_in_smaller_chunks(limits):
    """The network moves the starts of the second phase, a chunk at a time."""
    est = NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, network=Drift, n_jobs=1)
    source, target = two_clouds()
    expected = est.fit(source, target).transform(source)
    limits(afterwards=50)
    with pytest.warns(UserWarning, match=WARNING.format("37 rows")):
        found = clone(est).fit(source, target)
    limits(afterwards=math.inf)
    np.testing.assert_array_equal(found.transform(source), expected)
