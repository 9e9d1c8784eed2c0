import copy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from sklearn_nsgf._learning.held_out import Distance
from sklearn_nsgf._learning.training import (
    _Adam,
    _MovingAverage,
    _warm_up_then_cosine,
    time_loss,
    train_network,
)
from sklearn_nsgf._torch import RandomStream
from sklearn_nsgf.flow import PathSample
from sklearn_nsgf.networks import TimePredictor, make_network

OPTIONS = {"max_iter": 300, "batch_size": 64, "learning_rate": 0.01, "stream": RandomStream(0)}


def linear_field(generator):
    """Velocities 2 x - t, without noise."""

    def draw(n_samples):
        x = torch.randn(n_samples, 2, generator=generator)
        t = torch.rand(n_samples, generator=generator)
        return PathSample(t, x, 2 * x - t[:, None])

    return draw


def train(draw=None, **options):
    draw = draw or linear_field(torch.Generator().manual_seed(0))
    network = make_network((2,), hidden_layer_sizes=(32,))
    return train_network(network, draw, **{**OPTIONS, **options})


def test_it_learns_a_field():
    result = train()
    test = linear_field(torch.Generator().manual_seed(1))(500)
    with torch.no_grad():
        error = (result.network(test.t, test.x_t) - test.v_t).square().mean()
    assert error < 0.05 < result.curves.loss[0]
    assert len(result.curves.loss) == 50
    assert result.curves.n_iter == 300
    assert not result.interrupted
    assert result.curves.validation == []


GOES_ON = {"max_iter": 1000, "n_iter_no_change": 3, "beats_network": True}


class Criterion:
    """Answers the given values one after the other, with parts that scatter, each time anew, as asked for."""

    def __init__(self, values, scatter=0.0):
        self.values, self.scatter, self.states = iter(values), scatter, []

    def __call__(self, network):
        self.states.append(network and copy.deepcopy(network.state_dict()))
        value = next(self.values)
        signs = np.random.default_rng(len(self.states)).choice([-1.0, 1.0], 101)
        parts = value + self.scatter * signs * (len(self.states) > 1)
        return Distance(value, parts, parts)


def test_the_best_network_is_kept():
    criterion = Criterion([5, 4, 1, *range(2, 90)])
    result = train(max_iter=1000, criterion=criterion, n_iter_no_change=3)
    # Every tenth, later after a tenth of the steps so far, and every 20th.
    expected = [*range(0, 121, 10), 132, 140, 154, 160, 176, 180, 198, 200]
    assert result.curves.validation_steps == expected
    assert result.curves.validation[:4] == [5, 4, 1, 2]
    assert result.curves.n_kept == 20
    assert result.curves.n_iter == 200  # the fewest steps there are
    kept = criterion.states[2]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in result.network.state_dict().items())


@pytest.mark.parametrize(("scatter", "n_kept"), [(0.0, 200), (9.0, 200), (11.0, 0)])
def test_the_first_network_is_kept_unless_another_is_clearly_better(scatter, n_kept):
    """A gain of 1 against .7 standard errors, each sqrt(2 / 100) times the scatter."""
    criterion = Criterion([2, *[3] * 19, 1, *[3] * 99], scatter)
    result = train(max_iter=1000, criterion=criterion, n_iter_no_change=3)
    assert result.curves.validation[result.curves.validation_steps.index(200)] == 1
    assert result.curves.n_kept == n_kept
    # As many steps again as the last gain took.
    assert 400 <= result.curves.n_iter < 1000
    moves = result.network(torch.zeros(5), torch.ones(5, 2)).abs().max() > 0
    assert moves == (n_kept > 0)


@pytest.mark.parametrize(("scatter", "n_iter"), [(0.0, 1000), (0.005, 1000), (1.0, 200)])
def test_training_goes_on_for_clear_gains_only(scatter, n_iter):
    """Gains of .001 a look against .1 times the scatter; all of them are kept."""
    curves = train(criterion=Criterion(1 - 0.001 * np.arange(200), scatter), **GOES_ON).curves
    assert curves.n_iter == curves.n_kept == n_iter


def test_no_error_is_asked_for_where_a_training_goes_on():
    criterion = Criterion([2, *[3] * 19, 1, *[3] * 99], 20.0)
    assert train(criterion=criterion, **GOES_ON).curves.n_kept == 200


def test_a_loss_that_is_not_finite_raises_with_advice():
    def draw(n_samples):
        return PathSample(
            torch.zeros(n_samples), torch.zeros(n_samples, 2), torch.full((n_samples, 2), torch.inf)
        )

    with pytest.raises(FloatingPointError, match="learning_rate"):
        train(draw)


def test_the_averaged_network_is_not_the_last_one():
    result = train(max_iter=200, learning_rate=0.05)
    again = train(max_iter=200, learning_rate=0.05)
    for ours, theirs in zip(result.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not result.network.training


def test_the_steps_are_those_of_adam():
    """To the byte, also where a parameter has no gradient in some steps."""
    ours, theirs = (
        [torch.full((3,), 2.0, requires_grad=True), torch.ones(2, requires_grad=True)] for _ in range(2)
    )
    mine, torchs = _Adam(ours), torch.optim.Adam(theirs, fused=True)
    for n in range(20):
        rate = 0.1 / (n + 1)
        torchs.param_groups[0]["lr"] = rate
        for (first, second), optimizer in ((ours, mine), (theirs, torchs)):
            optimizer.zero_grad()
            loss = (first.square() * torch.arange(3.0)).sum() + (second.exp().sum() if n % 3 else 0)
            loss.backward()
        mine.step(rate)
        torchs.step()
        assert (ours[1].grad is None) == (n % 3 == 0)
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_a_fit_does_without_the_compiler():
    """Its import takes longer than a small fit."""
    code = """
import sys, numpy as np
from sklearn_nsgf import SinkhornFlowTransport
SinkhornFlowTransport(n_flows=1, max_iter=20).fit(np.arange(40.0).reshape(20, 2))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


class Counting(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("count", torch.zeros(()))

    def set(self, value):
        self.weight.data.fill_(value)
        self.count = torch.tensor(value)  # another tensor, as some modules do


def test_the_average_is_that_of_a_tenth_of_the_steps():
    """The first step counts in full, step k with 1 / (1 + k / 10), and with 10 / max_iter in the end."""
    network = Counting()
    average, expected = _MovingAverage(network, 50), 0.0
    for k, value in enumerate(np.random.default_rng(0).normal(size=80).astype(np.float32)):
        network.set(float(value))
        average.update()
        expected += (value - expected) / min(1 + k / 10, 5)
        assert average.network.weight.item() == pytest.approx(expected, abs=1e-6)
        assert average.network.count.item() == value


def test_ctrl_c_keeps_what_was_learnt():
    field = linear_field(torch.Generator().manual_seed(0))
    n_calls = 0

    def draw(n_samples):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 200:
            raise KeyboardInterrupt
        return field(n_samples)

    result = train(draw, max_iter=10_000, constant_rate=True)
    assert result.interrupted
    assert result.curves.n_iter == 199
    test = linear_field(torch.Generator().manual_seed(1))(500)
    with torch.no_grad():
        assert (result.network(test.t, test.x_t) - test.v_t).square().mean() < 0.2
    n_calls = 199
    with pytest.raises(KeyboardInterrupt):
        train(draw)


def test_ctrl_c_at_a_look_keeps_what_was_learnt():
    def criterion(network):
        looks.append(1)
        if len(looks) == 4:
            raise KeyboardInterrupt
        return Distance(1.0 / len(looks), np.full(9, 1.0 / len(looks)), np.zeros(9))

    looks = []
    result = train(criterion=criterion)
    assert result.interrupted
    assert result.curves.n_iter == 18
    assert result.curves.n_kept == 12


def test_times_are_learnt_from_points():
    generator = torch.Generator().manual_seed(0)

    def draw(n_samples):
        t = torch.rand(n_samples, generator=generator)
        return PathSample(t, t[:, None].expand(-1, 2), torch.full((n_samples, 2), torch.nan))

    result = train_network(TimePredictor(2, (16,)), draw, **OPTIONS, loss=time_loss)
    with torch.no_grad():
        predicted = result.network(torch.tensor([[0.2, 0.2], [0.8, 0.8]]))
    torch.testing.assert_close(predicted, torch.tensor([0.2, 0.8]), rtol=0, atol=0.1)


def test_a_constant_rate_stays():
    factor = _warm_up_then_cosine(100, constant_rate=True)
    assert [factor(n_iter) for n_iter in (0, 4, 50, 99)] == [0.2, 1, 1, 1]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.slow
# torch.compile itself calls what torch has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_training_is_the_same():
    plain, compiled = train(max_iter=20), train(max_iter=20, compile=True)
    for ours, theirs in zip(plain.network.parameters(), compiled.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
