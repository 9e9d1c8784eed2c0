import joblib
import numpy as np
import pytest
import torch

from sklearn_nsgf.flow import (
    ArraySampler,
    GaussianSampler,
    TrajectoryPool,
    _pool,
    build_trajectory_pool,
    particle_flow,
)

TARGET = np.random.default_rng(0).uniform(size=(200, 2)).astype(np.float32)
OPTIONS = {"n_flows": 4, "n_particles": 64, "seed": 0, "blur": 0.1, "n_steps": 3}


def build(**options):
    return build_trajectory_pool(GaussianSampler(np.ones(2)), ArraySampler(TARGET), **{**OPTIONS, **options})


def test_the_pool_holds_the_particles_paths():
    report = build()
    assert report.pool.paths.shape == (4 * 64, 4, 2)
    assert report.converged == 1
    assert 0 < report.marginal_error <= 1e-3

    rng = np.random.default_rng(np.random.SeedSequence(0).spawn(4)[2])
    x, y = GaussianSampler(np.ones(2)).draw(64, rng), ArraySampler(TARGET).draw(64, rng)
    flow = particle_flow(torch.from_numpy(x), torch.from_numpy(y), blur=0.1, n_steps=3)
    third = report.pool.paths[128:192]
    torch.testing.assert_close(third, flow.x.transpose(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_the_same_bytes_for_any_number_of_jobs(backend):
    expected = build(n_jobs=1).pool.paths
    assert torch.equal(build().pool.paths, expected)
    with joblib.parallel_config(backend):
        assert torch.equal(build(n_jobs=2).pool.paths, expected)
    assert not torch.equal(build(seed=1).pool.paths, expected)


def test_flows_side_by_side_are_those_one_after_the_other(monkeypatch):
    expected = build(n_flows=5).pool.paths
    monkeypatch.setattr(_pool, "_PLAN_SIZE_AT_ONCE", {"cpu": 2 * 64**2})
    report = build(n_flows=5)
    assert report.converged == 1
    torch.testing.assert_close(report.pool.paths, expected, rtol=0, atol=1e-2)


def test_the_number_of_threads_is_given_back():
    n_threads = torch.get_num_threads()
    build(n_jobs=2)
    assert torch.get_num_threads() == n_threads


def test_samples_lie_on_the_paths_with_their_velocity():
    """Paths x(t) = c + t^2 at the nodes: the segment from node k to k + 1 has slope (2k + 1)/n."""
    offsets = torch.arange(5.0)
    nodes = torch.arange(4) / 3
    pool = TrajectoryPool((10 * offsets[:, None] + nodes**2)[..., None])
    sample = pool.sample(1000, torch.Generator().manual_seed(0))
    segment = (sample.t * 3).floor()
    torch.testing.assert_close(sample.v_t[:, 0], (2 * segment + 1) / 3)
    path = (sample.x_t[:, 0] / 10).floor()
    expected = 10 * path + (segment / 3) ** 2 + (sample.t - segment / 3) * sample.v_t[:, 0]
    torch.testing.assert_close(sample.x_t[:, 0], expected, rtol=0, atol=1e-5)
    assert torch.bincount(path.long()).min() > 150
    assert torch.histc(sample.t, 10, 0, 1).min() > 60


def test_array_sampler_draws_without_replacement():
    rows = np.arange(10.0)[:, None]
    drawn = ArraySampler(rows).draw(6, np.random.default_rng(0))
    assert drawn.dtype == np.float32
    assert len(np.unique(drawn)) == 6
    assert sorted(ArraySampler(rows).draw(10, np.random.default_rng(0)).ravel()) == list(range(10))


def test_array_sampler_draws_every_row_equally_often_and_spreads_its_draws():
    rows = np.random.default_rng(0).normal(size=(1000, 2))
    sampler, rng = ArraySampler(rows), np.random.default_rng(1)
    index = {tuple(row): i for i, row in enumerate(rows.astype(np.float32).tolist())}
    counts = np.zeros(1000)
    right = []
    for _ in range(2000):
        drawn = sampler.draw(60, rng)
        counts[[index[tuple(row)] for row in drawn.tolist()]] += 1
        right.append((drawn[:, 0] > 0).sum())
    # Each count is binomial with mean 120 and deviation 10.6.
    assert abs(counts - 120).max() < 6 * 10.6
    assert counts.std() < 1.2 * 10.6
    # Independent draws would have a deviation of 3.9.
    assert np.std(right) < 2


def test_gaussian_sampler_spreads_its_draws():
    sampler, rng = GaussianSampler([1.0, 2.0]), np.random.default_rng(0)
    first, second = sampler.draw(1000, rng), sampler.draw(1000, rng)
    assert not np.array_equal(first, second)
    # Independent draws would have a mean with deviations of 0.03 and 0.06.
    assert abs(first.mean(0)).max() < 0.01


def test_gaussian_sampler_beyond_the_dimensions_of_sobol_points():
    drawn = GaussianSampler(np.full(21_202, 3.0)).draw(2, np.random.default_rng(0))
    assert drawn.dtype == np.float32
    assert drawn.std() == pytest.approx(3, abs=0.1)


def test_gaussian_sampler_has_the_deviations_asked_for():
    drawn = GaussianSampler([1.0, 2.0, 0.0]).draw(100_000, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), np.diag([1, 4, 0]), atol=0.05)


def test_more_rows_than_there_are():
    with pytest.raises(ValueError, match="11 rows were asked for, of 10"):
        ArraySampler(np.zeros((10, 1))).draw(11, np.random.default_rng(0))
