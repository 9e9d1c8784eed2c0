import numpy as np
import pytest
import torch

from sklearn_nsgf._training import train_network
from sklearn_nsgf.flow import PathSample
from sklearn_nsgf.networks import make_network

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
    return train_network(make_network(2, hidden_layer_sizes=(32,)), draw, **{**OPTIONS, **options})


def test_it_learns_a_field():
    result = train()
    test = linear_field(torch.Generator().manual_seed(1))(500)
    with torch.no_grad():
        error = (result.network(test.t, test.x_t) - test.v_t).square().mean()
    assert error < 0.05 < result.loss_curve[0]
    assert len(result.loss_curve) == 50
    assert result.n_iter == 300
    assert result.validation_curve == []


def test_early_stopping_keeps_the_best_network():
    """Validation targets are the negative of those of training: the first evaluation is the best."""
    held_out = linear_field(torch.Generator().manual_seed(1))(500)
    result = train(validation=held_out._replace(v_t=-held_out.v_t), n_iter_no_change=3)
    first_evaluation = 48  # every 6 of 300 iterations, none in the first 45
    assert result.n_iter == first_evaluation + 3 * 6
    assert len(result.validation_curve) == 4
    assert np.argmin(result.validation_curve) == 0
    with torch.no_grad():
        loss = (result.network(held_out.t, held_out.x_t) + held_out.v_t).square().mean().item()
    assert loss == pytest.approx(result.validation_curve[0])


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
