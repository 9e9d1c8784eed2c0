import shutil

import numpy as np
import pytest
import torch

from sklearn_nsgf._learning.training import _warm_up_then_cosine, time_loss, train_network
from sklearn_nsgf.flow import PathSample
from sklearn_nsgf.networks import MLP, TimePredictor, make_network

OPTIONS = {"max_iter": 300, "batch_size": 64, "learning_rate": 0.01}


def linear_field(generator):
    """Velocities 2 x - t, without noise."""

    def draw(n_samples):
        x = torch.randn(n_samples, 2, generator=generator)
        t = torch.rand(n_samples, generator=generator)
        return PathSample(t, x, 2 * x - t[:, None])

    return draw


def train(draw=None, **options):
    draw = draw or linear_field(torch.Generator().manual_seed(0))
    return train_network(make_network((2,), hidden_layer_sizes=(32,)), draw, **{**OPTIONS, **options})


def test_it_learns_a_field():
    result = train()
    test = linear_field(torch.Generator().manual_seed(1))(500)
    with torch.no_grad():
        error = (result.network(test.t, test.x_t) - test.v_t).square().mean()
    assert error < 0.05 < result.loss_curve[0]
    assert len(result.loss_curve) == 50
    assert result.n_iter == 300
    assert not result.interrupted
    assert result.validation_curve == []


def test_early_stopping_keeps_the_best_network():
    """Validation targets are the negative of those of training: the best evaluation is an early one."""
    held_out = linear_field(torch.Generator().manual_seed(1))(500)
    result = train(validation=held_out._replace(v_t=-held_out.v_t), n_iter_no_change=3)
    best = np.argmin(result.validation_curve)
    assert len(result.validation_curve) == best + 1 + 3
    # Evaluated every 6 of 300 iterations, never in the first 45.
    assert result.n_iter == 48 + 6 * (best + 3) < 150
    with torch.no_grad():
        loss = (result.network(held_out.t, held_out.x_t) + held_out.v_t).square().mean().item()
    assert loss == pytest.approx(result.validation_curve[best])


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
    assert result.n_iter == 199
    test = linear_field(torch.Generator().manual_seed(1))(500)
    with torch.no_grad():
        assert (result.network(test.t, test.x_t) - test.v_t).square().mean() < 0.2
    n_calls = 199
    with pytest.raises(KeyboardInterrupt):
        train(draw)


class InterruptedEvaluation(MLP):
    """Trains, and does as Ctrl-C does when it is evaluated."""

    def forward(self, t, x):
        if not self.training:
            raise KeyboardInterrupt
        return super().forward(t, x)


def test_ctrl_c_in_an_evaluation_keeps_what_was_learnt():
    field = linear_field(torch.Generator().manual_seed(0))
    network = InterruptedEvaluation(2, (32,))
    result = train_network(network, field, **OPTIONS, validation=field(100))
    assert result.interrupted
    assert result.n_iter == 48
    assert len(result.loss_curve) == 8


def test_the_validation_loss_is_that_of_all_points_together():
    field = linear_field(torch.Generator().manual_seed(0))
    held_out = field(150)  # two batches of 64 and a smaller one
    result = train(field, validation=held_out)
    with torch.no_grad():
        loss = (result.network(held_out.t, held_out.x_t) - held_out.v_t).square().mean().item()
    assert loss == pytest.approx(min(result.validation_curve), rel=1e-5)


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
