import math

import numpy as np
import pytest
import torch

from sklearn_nsgf.flow import n_evaluations, odeint


def rotating(t, x):
    """Has the solution x(t) = exp(sin t) x(0): it depends on both time and place."""
    return t.cos().unsqueeze(-1) * x


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_the_order_of_convergence(solver, order):
    x = torch.ones(1, 1, dtype=torch.float64)
    n_steps = np.array([16, 32, 64])
    errors = [
        abs(odeint(rotating, x, n_steps=n, solver=solver).item() - math.exp(math.sin(1)))
        for n in n_steps.tolist()
    ]
    slopes = -np.diff(np.log(errors)) / np.diff(np.log(n_steps))
    np.testing.assert_allclose(slopes, order, atol=0.2)


@pytest.mark.parametrize(("solver", "expected"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_the_number_of_evaluations(solver, expected):
    times = []

    def velocity(t, x):
        times.append(t)
        return x

    odeint(velocity, torch.ones(1, 1), n_steps=3, solver=solver)
    assert len(times) == 3 * expected
    assert n_evaluations(solver) == expected


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4"])
def test_every_row_has_its_own_times(solver):
    starts = torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64)
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = odeint(rotating, x, n_steps=4, t_start=starts, solver=solver)
    for k, start in enumerate(starts.tolist()):
        alone = odeint(rotating, x[k : k + 1], n_steps=4, t_start=start, solver=solver)
        torch.testing.assert_close(together[k : k + 1], alone)


def test_backwards_undoes_forwards():
    x = torch.ones(2, 1, dtype=torch.float64)
    there = odeint(rotating, x, n_steps=50, solver="rk4")
    back = odeint(rotating, there, n_steps=50, t_start=1.0, t_end=0.0, solver="rk4")
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)


def test_the_path_holds_every_step():
    x = torch.zeros(3, 2)
    path = odeint(lambda t, x: torch.ones_like(x), x, n_steps=4, return_path=True)
    assert path.shape == (5, 3, 2)
    torch.testing.assert_close(path[:, 0, 0], torch.linspace(0, 1, 5))
    torch.testing.assert_close(path[-1], odeint(lambda t, x: torch.ones_like(x), x, n_steps=4))


def test_a_step_of_rk4_is_the_taylor_polynomial_of_order_four():
    """For dx/dt = x and h = 1: 1 + 1 + 1/2 + 1/6 + 1/24."""
    x = torch.ones(1, dtype=torch.float64)
    assert odeint(lambda t, x: x, x, n_steps=1, solver="rk4").item() == pytest.approx(65 / 24, rel=1e-15)


@pytest.mark.parametrize(("solver", "expected"), [("euler", 0), ("midpoint", 2), ("heun", 2), ("rk4", 2)])
def test_times_of_the_stages(solver, expected):
    """For dx/dt = 4 t from 0 to 1 with one step: 2, but for Euler's, which sees the start alone."""
    answer = odeint(lambda t, x: 4 * t[:, None], torch.zeros(3, 1), n_steps=1, solver=solver)
    assert answer.tolist() == [[expected]] * 3


def test_options_out_of_range():
    with pytest.raises(ValueError, match="n_steps=0: expected at least one step"):
        odeint(rotating, torch.ones(1, 1), n_steps=0)
    for action in (
        n_evaluations,
        lambda solver: odeint(rotating, torch.ones(1, 1), n_steps=2, solver=solver),
    ):
        with pytest.raises(ValueError, match="solver='leapfrog' is unknown; use one of"):
            action("leapfrog")
