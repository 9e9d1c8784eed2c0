"""Oracles of the solver: exact answers first, then two independent libraries."""

import math

import geomloss
import numpy as np
import ot
import pytest
import torch

from sklearn_nsgf._torch import full_precision
from sklearn_nsgf.flow import (
    _memory,
    _plan,
    _problem,
    particle_flow,
    sinkhorn_divergence,
    sinkhorn_potentials,
    sinkhorn_velocity,
    symmetric_potential,
)

EXACT = {"tol": 1e-10, "max_iter": 20_000}


def clouds(n=20, m=25, d=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=dtype)
    y = 0.7 * torch.randn(m, d, generator=generator, dtype=dtype) + 1
    return x, y


def random_weights(n, seed):
    weights = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    return weights / weights.sum()


def plain_divergence(x, y, a, b, eps):
    """The divergence by unrolled log-domain Sinkhorn, differentiable: no code in common."""

    def transport(x, y, a, b):
        cost = (x[:, None] - y[None]).square().sum(-1) / 2
        f, g = torch.zeros_like(a), torch.zeros_like(b)
        for _ in range(1500):
            f = -eps * torch.logsumexp((g - cost) / eps + b.log(), dim=1)
            g = -eps * torch.logsumexp((f[:, None] - cost) / eps + a.log()[:, None], dim=0)
        return (a * f).sum() + (b * g).sum()

    return transport(x, y, a, b) - transport(x, x, a, a) / 2 - transport(y, y, b, b) / 2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("blur", [0.5, 1.0, 3.0])
def test_velocity_is_minus_the_gradient_of_the_divergence(blur, weighted):
    x, y = clouds(8, 9)
    a = random_weights(8, 1) if weighted else torch.full((8,), 1 / 8, dtype=torch.float64)
    b = random_weights(9, 2) if weighted else torch.full((9,), 1 / 9, dtype=torch.float64)
    moving = x.clone().requires_grad_()
    expected = plain_divergence(moving, y, a, b, blur**2)
    (gradient,) = torch.autograd.grad(expected, moving)
    result = sinkhorn_velocity(x, y, blur=blur, a=a, b=b, **EXACT)
    assert result.converged
    error = (result.v + gradient / a[:, None]).norm() / result.v.norm()
    assert error <= 1e-6
    divergence = sinkhorn_divergence(x, y, blur=blur, a=a, b=b, **EXACT).value
    assert divergence.item() == pytest.approx(expected.item(), rel=1e-8)


@pytest.mark.parametrize("blur", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_point_to_one_point(blur, dtype):
    x = torch.tensor([[1.0, -2.0]], dtype=dtype)
    y = torch.tensor([[4.0, 2.0]], dtype=dtype)
    torch.testing.assert_close(sinkhorn_velocity(x, y, blur=blur).v, y - x)
    assert sinkhorn_divergence(x, y, blur=blur).value.item() == pytest.approx(12.5, rel=1e-5)


@pytest.mark.parametrize("blur", [0.3, 1.0, 5.0])
def test_a_shifted_cloud_moves_by_the_shift(blur):
    x, _ = clouds()
    shift = torch.tensor([30.0, -20.0, 5.0], dtype=torch.float64)
    result = sinkhorn_velocity(x, x + shift, blur=blur, **EXACT)
    torch.testing.assert_close(result.v, shift.expand_as(x), rtol=1e-7, atol=1e-6)
    divergence = sinkhorn_divergence(x, x + shift, blur=blur, **EXACT).value
    assert divergence.item() == pytest.approx(shift.square().sum().item() / 2, rel=1e-7)


def test_a_cloud_at_its_target_stays():
    x, _ = clouds()
    permuted = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    result = sinkhorn_velocity(x, permuted, blur=0.4, **EXACT)
    assert result.v.abs().max() < 1e-7
    assert abs(sinkhorn_divergence(x, permuted, blur=0.4, **EXACT).value.item()) < 1e-9


def test_small_blur_is_the_optimal_assignment():
    generator = torch.Generator().manual_seed(3)
    grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
    x = grid + 0.1 * torch.rand(16, 2, generator=generator, dtype=torch.float64)
    order = torch.randperm(16, generator=generator)
    y = (grid + 0.1 * torch.rand(16, 2, generator=generator, dtype=torch.float64))[order]
    matched = x + sinkhorn_velocity(x, y, blur=0.05, tol=1e-8, max_iter=20_000).v
    torch.testing.assert_close(matched, y[order.argsort()], rtol=0, atol=1e-6)


@pytest.mark.parametrize("blur", [0.2, 1.0])
def test_equivariance(blur):
    x, y = clouds()
    velocity = sinkhorn_velocity(x, y, blur=blur, **EXACT).v
    order = torch.arange(len(x) - 1, -1, -1)
    rotation = torch.linalg.qr(clouds(3, 3)[0]).Q
    shift = torch.tensor([5.0, -3.0, 100.0], dtype=torch.float64)

    permuted = sinkhorn_velocity(x[order], y, blur=blur, **EXACT).v
    torch.testing.assert_close(permuted, velocity[order], rtol=0, atol=1e-7)
    rotated = sinkhorn_velocity(x @ rotation, y @ rotation, blur=blur, **EXACT).v
    torch.testing.assert_close(rotated, velocity @ rotation, rtol=0, atol=1e-7)
    translated = sinkhorn_velocity(x + shift, y + shift, blur=blur, **EXACT).v
    torch.testing.assert_close(translated, velocity, rtol=0, atol=1e-7)
    scaled = sinkhorn_velocity(1e3 * x, 1e3 * y, blur=1e3 * blur, **EXACT).v
    torch.testing.assert_close(scaled, 1e3 * velocity, rtol=0, atol=1e-4)


@pytest.mark.parametrize("blur", [0.1, 0.5, 2.0])
def test_potentials_against_pot(blur):
    x, y = clouds()
    a, b = random_weights(len(x), 1), random_weights(len(y), 2)
    result = sinkhorn_potentials(x, y, blur=blur, a=a, b=b, **EXACT)
    costs = (x[:, None] - y[None]).square().sum(-1) / 2
    plan = a[:, None] * b * ((result.f[:, None] + result.g - costs) / blur**2).exp()
    expected = ot.sinkhorn(
        a.numpy(),
        b.numpy(),
        2 * costs.numpy(),
        reg=2 * blur**2,
        method="sinkhorn_log",
        stopThr=1e-11,
        numItermax=50_000,
    )
    np.testing.assert_allclose(plan.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("blur", [0.3, 1.0])
def test_divergence_and_gradient_against_geomloss(blur):
    x, y = clouds(60, 60)
    moving = x.clone().requires_grad_()
    loss = geomloss.SamplesLoss("sinkhorn", p=2, blur=blur, scaling=0.99, backend="tensorized")
    expected = loss(moving, y)
    (gradient,) = torch.autograd.grad(expected, moving)
    divergence = sinkhorn_divergence(x, y, blur=blur, **EXACT).value
    assert divergence.item() == pytest.approx(expected.item(), rel=0.02)
    velocity = sinkhorn_velocity(x, y, blur=blur, **EXACT).v
    assert (velocity + len(x) * gradient).norm() / velocity.norm() < 0.05


def test_between_gaussians_the_velocity_is_that_of_the_closed_form():
    """One dimension: the entropic plan between N(0, s^2) and N(0, r^2) is Gaussian.

    Its covariance c solves c^2 + eps c = s^2 r^2, and the projection is x -> c x / s^2
    (Janati et al., 2020).
    """
    source_std, target_std, blur = 1.0, 0.5, 0.7
    n = 2000
    quantiles = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]

    def slope(s, r):
        eps = blur**2
        covariance = (math.sqrt(eps**2 + 4 * s**2 * r**2) - eps) / 2
        return covariance / s**2

    v = sinkhorn_velocity(source_std * quantiles, target_std * quantiles, blur=blur, tol=1e-8).v
    expected = (slope(source_std, target_std) - slope(source_std, source_std)) * quantiles
    central = quantiles.abs() < 2.5
    torch.testing.assert_close(v[central], expected[central], rtol=0.02, atol=2e-3)


def test_batches_are_independent_problems():
    pairs = [clouds(seed=seed) for seed in range(4)]
    x, y = (torch.stack(group).view(2, 2, *group[0].shape) for group in zip(*pairs, strict=True))
    batched = sinkhorn_velocity(x, y, blur=0.3, **EXACT)
    assert batched.converged.shape == (2, 2)
    for k, (x_k, y_k) in enumerate(pairs):
        single = sinkhorn_velocity(x_k, y_k, blur=0.3, **EXACT)
        torch.testing.assert_close(batched.v[k // 2, k % 2], single.v, rtol=0, atol=1e-7)


@pytest.mark.parametrize("coarse_points", [2048, 16])
@pytest.mark.parametrize("blur", [0.02, 0.3])
def test_recomputed_blocks_and_a_coarse_start_give_the_answer_of_a_stored_plan(
    monkeypatch, blur, coarse_points
):
    x, y = (torch.stack([cloud, cloud + 1]) for cloud in clouds(70, 90))
    a = torch.stack([random_weights(70, 0), random_weights(70, 1)])
    options = {"blur": blur, "a": a, "tol": 1e-6, "max_iter": 20_000}
    stored, divergence = sinkhorn_velocity(x, y, **options), sinkhorn_divergence(x, y, **options).value
    monkeypatch.setattr(_plan, "_STORED_SIZE", {"cpu": 0})
    monkeypatch.setattr(_plan, "_BLOCK_SIZE", {"cpu": 4000})
    monkeypatch.setattr(_problem, "_COARSE_POINTS", coarse_points)
    blocks = [rows for rows, _ in _plan.Similarity(x, y, blur, _memory.Memory()).plus(y[..., 0])]
    assert [rows.start for rows in blocks] == [0, 22, 44, 66]
    streamed = sinkhorn_velocity(x, y, **options)
    assert stored.converged.all()
    assert streamed.converged.all()
    torch.testing.assert_close(streamed.v, stored.v, rtol=0, atol=1e-3)
    torch.testing.assert_close(sinkhorn_divergence(x, y, **options).value, divergence, rtol=1e-5, atol=0)


def test_an_easy_problem_does_not_move_while_a_hard_one_is_solved():
    x, y = (torch.stack([cloud, 2 * cloud]) for cloud in clouds())
    start = torch.zeros(2, y.shape[1], dtype=y.dtype)
    both = sinkhorn_velocity(x, y, blur=0.8, g_init=start)
    easy = sinkhorn_velocity(x[0], y[0], blur=0.8, g_init=start[0])
    assert both.converged.all()
    assert both.n_iters > easy.n_iters
    torch.testing.assert_close(both.v[0], easy.v, rtol=0, atol=1e-7)


def test_rounding_is_that_of_each_problem():
    x, y = (torch.stack([cloud, cloud]) for cloud in clouds())
    x[1, 0] = 1e8
    assert sinkhorn_velocity(x, y, blur=0.1).converged.tolist() == [True, False]


def test_annealing_does_not_change_the_answer():
    x, y = clouds(40, 30)
    answers = [sinkhorn_velocity(x, y, blur=0.2, scaling=scaling, **EXACT).v for scaling in (0.1, 0.5, 0.9)]
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=1e-7)
    torch.testing.assert_close(answers[2], answers[1], rtol=0, atol=1e-7)


def test_a_warm_start_saves_rounds_and_gives_the_same_answer():
    x, y = clouds(100, 100)
    cold = sinkhorn_velocity(x, y, blur=0.2, tol=1e-6, max_iter=5000)
    warm = sinkhorn_velocity(x, y, blur=0.2, tol=1e-6, max_iter=5000, g_init=cold.g)
    assert warm.n_iters <= 2 < cold.n_iters
    torch.testing.assert_close(warm.v, cold.v, rtol=0, atol=1e-4)


@pytest.mark.parametrize("blur", [1e-3, 1e-2, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("case", ["gaussians", "far", "duplicates", "outlier", "collapsed"])
def test_any_blur_gives_finite_velocities_and_an_honest_flag(blur, case):
    x, y = clouds(100, 80, d=2, dtype=torch.float32)
    if case == "far":
        y = y + 1e3
    elif case == "duplicates":
        x, y = x[:5].repeat(20, 1), y[:4].repeat(20, 1)
    elif case == "outlier":
        y[0] = 1e3
        y[1] = 1e3
    elif case == "collapsed":
        x = torch.zeros_like(x)
    result = sinkhorn_velocity(x, y, blur=blur, max_iter=300)
    assert torch.isfinite(result.v).all()
    assert result.converged == (result.marginal_error <= 1e-3)
    potentials = sinkhorn_potentials(x, y, blur=blur, max_iter=300)
    assert torch.isfinite(potentials.f).all()
    assert torch.isfinite(potentials.g).all()


def test_the_reported_marginal_error_is_that_of_the_potentials():
    x, y = clouds()
    a, b = random_weights(len(x), 1), random_weights(len(y), 2)
    result = sinkhorn_potentials(x, y, blur=0.2, a=a, b=b, tol=1e-2)
    costs = (x[:, None] - y[None]).square().sum(-1) / 2
    plan = a[:, None] * b * ((result.f[:, None] + result.g - costs) / 0.2**2).exp()
    error = (plan.sum(0) - b).abs().sum() + (plan.sum(1) - a).abs().sum()
    assert result.marginal_error.item() == pytest.approx(error.item(), abs=1e-9)
    assert 0 < error <= 1e-2


def test_the_error_is_true_whenever_the_rounds_end():
    """On a grid at a small blur, where scalings run away between two absorptions."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 20, generator=generator, dtype=torch.float64).round() for n in (28, 43))
    for max_iter in range(45, 66):
        result = sinkhorn_potentials(x, y, blur=0.01, tol=1e-3, max_iter=max_iter)
        costs = (x[:, None] - y[None]).square().sum(-1) / 2
        plan = ((result.f[:, None] + result.g - costs) / 0.01**2).exp() / (28 * 43)
        error = (plan.sum(0) - 1 / 43).abs().sum()
        assert result.marginal_error.item() == pytest.approx(error.item(), abs=1e-6)


def test_the_symmetric_potential_solves_the_self_problem():
    x, _ = clouds()
    own = symmetric_potential(x, blur=1.0, tol=1e-12)
    cross = sinkhorn_potentials(x, x, blur=1.0, **EXACT)
    assert own.converged
    assert torch.equal(own.f, own.g)
    torch.testing.assert_close(own.f[:, None] + own.g, cross.f[:, None] + cross.g, rtol=0, atol=1e-7)


def test_unconverged_is_said():
    x, y = clouds(200, 200, d=2)
    result = sinkhorn_velocity(x, y, blur=0.01, tol=1e-9, max_iter=3)
    assert not result.converged
    assert result.marginal_error > 1e-9


@pytest.mark.parametrize("max_iter", [1, 3, 1000])
def test_a_divergence_is_as_good_as_the_worst_of_its_problems(max_iter):
    """Of those of points to points, points to one point, and one point to points, where others are worst."""
    x, y = (torch.stack(pair) for pair in zip(clouds(seed=0), clouds(seed=1), strict=True))
    options = {"blur": 0.3, "tol": 1e-4, "max_iter": max_iter}
    for source, target in ((x, y), (x, y[:, :1]), (x[:, :1], y)):
        answer = sinkhorn_divergence(source, target, **options)
        solved = [
            sinkhorn_potentials(source, target, **options),
            *(symmetric_potential(cloud, **options) for cloud in (source, target)),
        ]
        errors = torch.stack([each.marginal_error for each in solved])
        assert torch.equal(answer.marginal_error, errors.amax(0))
        assert torch.equal(answer.converged, (errors <= 1e-4).all(0))
        assert answer.n_iters == max(each.n_iters for each in solved)
        assert answer.converged.all() == (max_iter == 1000)


def test_points_of_weight_zero_count_for_nothing():
    x, y = clouds()
    a = random_weights(len(x), 1)
    a[:5] = 0
    a /= a.sum()
    whole = sinkhorn_velocity(x, y, blur=0.5, a=a, **EXACT)
    without = sinkhorn_velocity(x[5:], y, blur=0.5, a=a[5:], **EXACT)
    assert whole.converged
    torch.testing.assert_close(whole.v[5:], without.v, rtol=0, atol=1e-7)
    assert torch.isfinite(whole.v).all()
    backwards = sinkhorn_potentials(y, x, blur=0.5, b=a, **EXACT)
    assert backwards.converged
    assert torch.isfinite(backwards.g).all()


@pytest.mark.parametrize("function", [sinkhorn_potentials, sinkhorn_velocity, sinkhorn_divergence])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur": 0.0}, "positive blur"),
        ({"blur": -1.0}, "positive blur"),
        ({"blur": float("nan")}, "positive blur"),
        ({"scaling": 1.0}, "scaling between"),
        ({"scaling": 0.0}, "scaling between"),
        ({"tol": -1.0}, "tol of at least"),
        ({"max_iter": 0}, "max_iter of at least"),
        ({"a": torch.full((20,), 0.1)}, "sum to one"),
        ({"a": torch.ones(1)}, r"a has shape \(1,\)"),
        ({"b": torch.tensor([2.0, -1.0] + 23 * [0.0])}, "non-negative"),
        ({"y": torch.zeros(4, 2, dtype=torch.float64)}, "same d"),
        ({"y": torch.zeros(4, 3)}, "both float32 or both float64"),
        (
            {"x": torch.ones(4, 3, dtype=torch.int32), "y": torch.ones(4, 3, dtype=torch.int32)},
            "both float32",
        ),
        ({"y": torch.zeros(0, 3, dtype=torch.float64)}, "at least one point"),
    ],
)
def test_bad_arguments(function, options, message):
    x, y = clouds()
    with pytest.raises(ValueError, match=message):
        function(**{"x": x, "y": y, "blur": 0.3, **options})


def test_clouds_too_large_for_float32_are_solved_in_float64():
    """Half of the source is 1 000 away: in float32 the logits would be off by a thousand."""
    generator = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(60, 2, generator=generator)
    x[:30] += 1000.0
    y = torch.randn(60, 2, generator=generator)
    single = sinkhorn_velocity(x, y, blur=0.01)
    double = sinkhorn_velocity(x.double(), y.double(), blur=0.01)
    assert single.converged
    assert single.v.dtype == single.g.dtype == single.marginal_error.dtype == torch.float32
    torch.testing.assert_close(single.v.double(), double.v, rtol=1e-5, atol=1e-3)
    potentials = sinkhorn_potentials(x, y, blur=0.01)
    assert potentials.f.dtype == torch.float32


def test_rounding_that_no_iteration_can_undo_is_not_called_convergence():
    x, y = clouds()
    x[0] = 1e8
    result = sinkhorn_velocity(x, y, blur=0.01)
    assert not result.converged
    assert result.marginal_error > 1


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e200])
def test_clouds_that_are_not_finite(value):
    x, y = clouds()
    x[0, 0] = value
    for function in (sinkhorn_velocity, sinkhorn_potentials, sinkhorn_divergence):
        with pytest.raises(ValueError, match="must be finite"):
            function(x, y, blur=0.1)


def test_a_start_that_is_not_finite_and_one_with_a_large_constant():
    x, y = clouds(dtype=torch.float32)
    g = sinkhorn_velocity(x, y, blur=0.3).g
    with pytest.raises(ValueError, match="g_init"):
        sinkhorn_velocity(x, y, blur=0.3, g_init=g + math.inf)
    shifted = sinkhorn_velocity(x, y, blur=0.3, g_init=g + 1e4)
    torch.testing.assert_close(shifted.v, sinkhorn_velocity(x, y, blur=0.3).v, rtol=0, atol=0.02)
    assert abs(shifted.g).max() < 1e3
    assert torch.equal(
        sinkhorn_velocity(x, y, blur=0.3, g_init=g.double()).v, sinkhorn_velocity(x, y, blur=0.3, g_init=g).v
    )


def test_very_unequal_weights_and_an_outlier():
    for seed in range(4):
        x, y = clouds(20, 20, seed=seed)
        x[0], y[0] = 50 * x[0], 50 * y[0]
        exponents = -12 * torch.rand(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        b = (10**exponents) / (10**exponents).sum()
        assert sinkhorn_potentials(x, y, blur=0.3, b=b).converged


def test_weights_are_normalised():
    x, y = clouds()
    a = torch.full((20,), 1.0009 / 20, dtype=torch.float64)
    assert sinkhorn_potentials(x, y, blur=0.3, a=a, tol=1e-6).converged


def test_clusters_of_duplicates_converge():
    """Many equal points in the corners of a square: columns compete for whole clusters."""
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randint(2, (40, 2), generator=generator).float() for _ in range(2))
        assert bool(sinkhorn_velocity(x, y, blur=0.05, tol=2e-3).converged)


@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_the_error_that_is_reported_is_the_true_one(tol):
    """Of the columns: the rows of the plan are exact. Small tolerances are beyond sums in float32."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(256, 784, generator=generator), torch.randn(256, 784, generator=generator)
    answer = sinkhorn_potentials(x, y, blur=5.0, tol=tol)
    assert bool(answer.converged)
    eps = 25.0
    costs = torch.cdist(x.double(), y.double()).square() / 2
    plan = ((answer.g.double() - costs) / eps).softmax(-1) / 256
    rounding_of_g = 3e-6
    assert (plan.sum(0) - 1 / 256).abs().sum() <= 1.1 * tol + rounding_of_g


@pytest.mark.parametrize("is_old_torch", [False, True])
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_reduced_precision_of_products_is_not_for_costs(monkeypatch, precision, is_old_torch):
    """On a CPU with bfloat16 the product itself differs."""
    if is_old_torch:  # before 2.9, with one setting for all backends
        monkeypatch.setattr(full_precision, "get", lambda: [torch.get_float32_matmul_precision()])
    x, y = clouds(256, 256, d=300, dtype=torch.float32)
    expected = sinkhorn_velocity(x, y, blur=3.0).v, particle_flow(x, y, blur=3.0, n_steps=2).x
    torch.set_float32_matmul_precision(precision)
    try:
        reduced = sinkhorn_velocity(x, y, blur=3.0).v, particle_flow(x, y, blur=3.0, n_steps=2).x
        assert torch.get_float32_matmul_precision() == precision
        with full_precision, full_precision:
            torch.testing.assert_close(x @ y.mT, (x.double() @ y.double().mT).float(), rtol=0, atol=1e-4)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")
    for each, other in zip(reduced, expected, strict=True):
        assert torch.equal(each, other)


def clusters(rng, centres, n=900):
    return np.asarray(centres, float)[rng.choice(len(centres), n)] + 0.3 * rng.normal(size=(n, 2))


def two_and_three_clusters(seed):
    rng = np.random.default_rng(seed)
    return clusters(rng, [(-3, 0), (3, 0)]), clusters(rng, [(0, 4), (4, -3), (-4, -3)])


def normal_and_four_corners(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(900, 2)), clusters(rng, [(5, 5), (5, -5), (-5, 5), (-5, -5)])


def in_units(source, target):
    return (torch.from_numpy((each - target.mean(0)) / target.std(0)).float() for each in (source, target))


def test_mass_crosses_gaps(monkeypatch):
    """Rounds alone leave the mass of a point where it was; in which flows depends on rounding."""
    options = {"blur": 0.05, "n_steps": 5, "tol": 0.002}

    def largest_error():
        samples = [make(k) for make in (two_and_three_clusters, normal_and_four_corners) for k in range(8)]
        return max(particle_flow(*in_units(*each), **options).marginal_error.max() for each in samples)

    assert largest_error() <= 0.002
    monkeypatch.setattr(_problem, "_STALL_ROUNDS", 10**9)
    assert largest_error() > 0.0021


def test_mass_crosses_a_gap_in_one_problem_of_a_batch(monkeypatch):
    """The other one does not move: it is solved from the start."""
    calls = []
    offsets_of = _problem.group_offsets

    def counted(x, *arguments):
        calls.append(x)
        return offsets_of(x, *arguments)

    monkeypatch.setattr(_problem, "group_offsets", counted)
    options = {"blur": 0.05, "tol": 0.002}

    def stalled_problem():
        for seed in range(20):
            x, y = in_units(*two_and_three_clusters(seed))
            for k in range(5):
                v = sinkhorn_velocity(x, y, **options).v
                if calls:
                    return x, y
                x = x + v / (5 - k)
        raise AssertionError("no problem has stalled")

    x, y = stalled_problem()
    calls.clear()
    batch = sinkhorn_velocity(torch.stack([y, x]), torch.stack([y, y]), **options)
    assert batch.converged.all()
    assert len(calls) == 1
    torch.testing.assert_close(calls[0], x - y.mean(0))
    assert batch.v[0].abs().max() < 0.05


def test_offsets_give_groups_their_mass_in_any_order_of_the_points():
    """Two far clusters, two thirds of the source in one of them, interleaved: what is exact is known.

    Every third point of the source, or every second one of the target, would be of a single cluster.
    """
    x = torch.tensor([1.0, 0.0, 0.0]).repeat(1600).unsqueeze(-1)
    y = torch.tensor([0.0, 1.0]).repeat(600).unsqueeze(-1)
    a, b = torch.full((4800,), 1 / 4800), torch.full((1200,), 1 / 1200)
    columns = -y.squeeze(-1).square() / 2 / 0.01
    offsets = _problem.group_offsets(x, y, a, b, columns, 0.01)
    # A quarter of the source points at 0 goes over to 1, at a cost |x - y|^2 / 2 of 50 temperatures.
    assert offsets[y.squeeze(-1) == 0].std() < 1e-3 > offsets[y.squeeze(-1) == 1].std()
    assert (offsets[1] - offsets[0]).item() == pytest.approx(50, rel=1e-4)
    # All of the source in one cluster: the costs are negative, all of them.
    offsets = _problem.group_offsets(torch.ones(1600, 1), y, a[:1600], b, columns, 0.01)
    assert (offsets[1] - offsets[0]).item() == pytest.approx(-50, rel=1e-4)
