import numpy as np
import pytest
import torch

from sklearn_nsgf.flow import (
    _particles,
    _plan,
    blur_schedule,
    particle_flow,
    sinkhorn_divergence,
    sinkhorn_velocity,
    step_sizes,
)


def clouds(n=60, m=50, d=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=dtype)
    y = 0.5 * torch.randn(m, d, generator=generator, dtype=dtype) + 2
    return x, y


@pytest.mark.parametrize("step_size", ["harmonic", 0.3, [0.1, 0.2, 0.5, 1.0]])
def test_positions_and_velocities_are_paired(step_size):
    x, y = clouds()
    flow = particle_flow(x, y, blur=0.3, n_steps=4, step_size=step_size, tol=1e-6)
    etas = step_sizes(step_size, 4)
    assert torch.equal(flow.x[0], x)
    for k in range(4):
        torch.testing.assert_close(flow.x[k + 1], flow.x[k] + etas[k] * flow.v[k])
        at_x_k = sinkhorn_velocity(flow.x[k], y, blur=0.3, tol=1e-8, max_iter=5000).v
        torch.testing.assert_close(flow.v[k], at_x_k, rtol=0, atol=1e-4)


@pytest.mark.parametrize("blur", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("step_size", ["harmonic", 0.4])
def test_every_step_lowers_the_divergence(blur, step_size):
    x, y = clouds()
    flow = particle_flow(x, y, blur=blur, n_steps=6, step_size=step_size, tol=1e-6)
    divergences = [sinkhorn_divergence(x_k, y, blur=blur, tol=1e-8).value.item() for x_k in flow.x]
    assert np.all(np.diff(divergences) < 0)
    assert divergences[-1] < 0.05 * divergences[0]


def test_harmonic_steps_walk_a_translation_in_equal_parts():
    x, _ = clouds()
    shift = torch.tensor([3.0, -1.0], dtype=torch.float64)
    flow = particle_flow(x, x + shift, blur=0.05, n_steps=5, tol=1e-8)
    for t, x_t in zip(flow.t, flow.x, strict=True):
        torch.testing.assert_close(x_t, x + t * shift, rtol=0, atol=1e-5)


def test_a_constant_step_keeps_the_papers_geometric_decay():
    x = torch.zeros(1, 1, dtype=torch.float64)
    flow = particle_flow(x, x + 1, blur=0.1, n_steps=3, step_size=0.5)
    torch.testing.assert_close(flow.x.flatten(), torch.tensor([0, 0.5, 0.75, 0.875]).double())


def test_the_step_schedule():
    np.testing.assert_allclose(step_sizes("harmonic", 3), [1 / 3, 1 / 2, 1])
    np.testing.assert_allclose(step_sizes(0.2, 3), [0.2, 0.2, 0.2])
    with pytest.raises(ValueError, match="n_steps=3"):
        step_sizes([0.1, 0.2], 3)
    with pytest.raises(ValueError, match="outside"):
        step_sizes(1.5, 3)
    with pytest.raises(ValueError, match="'harmonic'"):
        step_sizes("arithmetic", 3)


def test_blur_falls_along_the_flow():
    np.testing.assert_allclose(blur_schedule((2.0, 0.5), 3), [2, 1, 0.5])
    np.testing.assert_allclose(blur_schedule(0.3, 2), [0.3, 0.3])
    np.testing.assert_allclose(blur_schedule((2.0, 0.5), 1), [0.5])
    x, y = clouds()
    flow = particle_flow(x, y, blur=(1.0, 0.2), n_steps=3, tol=1e-8, max_iter=5000)
    for k, blur in enumerate([1.0, np.sqrt(0.2), 0.2]):
        expected = sinkhorn_velocity(flow.x[k], y, blur=blur, tol=1e-8, max_iter=5000).v
        torch.testing.assert_close(flow.v[k], expected, rtol=0, atol=1e-5)


def test_a_collapsed_source_stays_collapsed():
    _, y = clouds()
    x = y.mean(0).expand(10, 2)
    flow = particle_flow(x, y, blur=0.3, n_steps=3)
    torch.testing.assert_close(flow.v, torch.zeros_like(flow.v), rtol=0, atol=1e-6)


def test_batched_flows_are_independent():
    x, y = clouds()
    batched = particle_flow(torch.stack([x, x + 5]), torch.stack([y, y]), blur=0.3, n_steps=3)
    assert batched.x.shape == (4, 2, 60, 2)
    single = particle_flow(x + 5, y, blur=0.3, n_steps=3)
    torch.testing.assert_close(batched.x[-1, 1], single.x[-1], rtol=0, atol=1e-2)


@pytest.mark.parametrize("blur", [0.5, 20.0, (20.0, 2.0)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_few_points_take_their_inner_products_along(monkeypatch, blur, batch):
    """At the small blur the particles' plan to themselves is the identity, at the large one it is not."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(*batch, n, 90, generator=generator, dtype=torch.float64) for n in (30, 20))
    options = {"blur": blur, "n_steps": 6, "tol": 1e-9, "step_size": 0.3, "max_iter": 9999}
    along = particle_flow(x, y + 1, **options)
    monkeypatch.setattr(_particles, "_FEATURES_PER_POINT", np.inf)
    anew = particle_flow(x, y + 1, **options)
    assert along.converged.all()
    torch.testing.assert_close(along.x, anew.x, rtol=0, atol=1e-6)


def test_rounding_of_inner_products_does_not_add_up():
    """The products of far clouds are large, and those of the particles shrink on the way."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(30, 784, generator=generator) for _ in range(2))
    options = {"blur": 15.0, "n_steps": 100, "tol": 1e-4}
    flow = particle_flow(x, y + 100, **options)
    exact = particle_flow(x.double(), y.double() + 100, **options)
    assert exact.converged.all()
    torch.testing.assert_close(flow.x.double(), exact.x, rtol=0, atol=3e-3)


@pytest.mark.parametrize(("n", "m"), [(5, 40), (40, 5), (10, 10)])
def test_few_points_too_many_to_keep_their_products(monkeypatch, n, m):
    x, y = clouds(n, m, d=100)
    kept = particle_flow(x, y, blur=5.0, n_steps=3, tol=1e-8)
    monkeypatch.setattr(_plan, "_STORED_SIZE", {"cpu": 300})
    torch.testing.assert_close(particle_flow(x, y, blur=5.0, n_steps=3, tol=1e-8).x, kept.x)


def test_the_error_knows_the_rounding_of_points_that_have_moved():
    """A first step with a large blur throws an outlier to the other side, farther out than any point was."""
    x = torch.tensor([[1000.0]] * 9 + [[-1000.0]]) + 1.5 * torch.arange(10.0)[:, None]
    y = 5 * torch.arange(10.0)[:, None]
    flow = particle_flow(x, y, blur=(2000.0, 5.0), n_steps=2, step_size=1.0)
    farthest = (flow.x[1] - y.mean()).abs().max()
    rounding = farthest.square() / 2 * 2 * torch.finfo(torch.float32).eps / 5.0**2
    assert rounding > 0.01
    assert flow.converged.tolist() == [True, False]
    assert flow.marginal_error[1].item() == pytest.approx(rounding.item(), rel=1e-5)


def test_a_flow_can_be_learnt_from():
    x, y = clouds()
    flow = particle_flow(x.requires_grad_(), y, blur=0.3, n_steps=2)
    weight = torch.ones(2, dtype=x.dtype, requires_grad=True)
    (flow.x * weight).sum().backward()
    torch.testing.assert_close(weight.grad, flow.x.sum((0, 1)))


@pytest.mark.parametrize("blur", [0, -1.0, np.nan, (0.1, -0.1), (0.1, 0.2, 0.3)])
def test_a_blur_that_is_none(blur):
    with pytest.raises(ValueError, match="positive number or a pair"):
        blur_schedule(blur, 3)


def test_a_blur_that_rises():
    with pytest.raises(ValueError, match="larger one first"):
        blur_schedule((0.1, 0.2), 3)


def test_no_steps():
    with pytest.raises(ValueError, match="at least one step"):
        step_sizes("harmonic", 0)
