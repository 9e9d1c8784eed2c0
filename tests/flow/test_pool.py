import joblib
import numpy as np
import pytest
import torch

from sklearn_nsgf.flow import (
    ArraySampler,
    Couplings,
    GaussianSampler,
    PathPool,
    PushforwardSampler,
    SinkhornFlows,
    StackedBlocks,
    TrajectoryPool,
    _pool,
    _samplers,
    particle_flow,
)
from sklearn_nsgf.flow._pool import n_flows_at_once

TARGET = np.random.default_rng(0).uniform(size=(200, 2)).astype(np.float32)
OPTIONS = {"n_particles": 64, "blur": 0.1, "n_steps": 3}


def flows(**options):
    return SinkhornFlows(GaussianSampler(np.ones(2)), ArraySampler(TARGET), **{**OPTIONS, **options})


def build(n_blocks=4, seed=0, **options):
    return TrajectoryPool(flows(**options), n_blocks=n_blocks, seed=seed)


def test_the_pool_holds_the_particles_paths():
    pool = build()
    assert pool.paths.shape == (4 * 64, 4, 2)
    assert pool.make_blocks.n_converged == pool.make_blocks.n_problems > 0
    assert 0 < pool.make_blocks.marginal_error <= 1e-3

    rng = np.random.default_rng(np.random.SeedSequence(0).spawn(4)[2])
    x, y = GaussianSampler(np.ones(2)).draw(64, rng), ArraySampler(TARGET).draw(64, rng)
    flow = particle_flow(torch.from_numpy(x), torch.from_numpy(y), blur=0.1, n_steps=3)
    third = pool.paths[128:192]
    torch.testing.assert_close(third, flow.x.transpose(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_the_same_bytes_for_any_number_of_jobs(backend):
    expected = build(n_jobs=1).paths
    assert torch.equal(build().paths, expected)
    with joblib.parallel_config(backend):
        assert torch.equal(build(n_jobs=2).paths, expected)
    assert not torch.equal(build(seed=1).paths, expected)


def test_flows_side_by_side_are_those_one_after_the_other(monkeypatch):
    seeds = np.random.SeedSequence(0).spawn(5)
    together = flows()
    paths = together(seeds)
    assert together.n_converged == together.n_problems
    monkeypatch.setattr(_pool, "_SIZE_AT_ONCE", {"cpu": 1})
    torch.testing.assert_close(paths, flows()(seeds), rtol=0, atol=1e-2)


def test_small_flows_go_side_by_side():
    assert n_flows_at_once(64, 64, 2, "cpu") == 64
    assert n_flows_at_once(1024, 1024, 2, "cpu") == 1
    assert n_flows_at_once(256, 256, 784, "cpu") == 1


def numbered(seeds):
    """A block of three constant paths whose value is the number of the block."""
    numbers = torch.tensor([float(seed.spawn_key[-1]) for seed in seeds])
    return numbers[:, None, None, None].expand(-1, 3, 2, 1)


numbered.n_at_once = 1


def test_a_pool_that_rolls_holds_the_newest_blocks():
    pool = TrajectoryPool(numbered, n_blocks=20, n_held=5, n_draws=100, seed=0)
    generator = torch.Generator().manual_seed(0)
    held = []
    for _ in range(100):
        held.append(sorted(set(pool.paths.flatten().tolist())))
        assert pool.sample(4, generator).x_t.shape == (4, 1)
    assert held[0] == [0, 1, 2, 3, 4]
    assert held[-1] == [15, 16, 17, 18, 19]
    assert all(blocks == list(range(int(blocks[0]), int(blocks[0]) + 5)) for blocks in held)
    newest = np.array([blocks[-1] for blocks in held])
    np.testing.assert_allclose(newest, 4 + 15 * np.arange(100) / 100, atol=1.2)
    assert pool.blocks.shape == (5, 3, 2, 1)


@pytest.mark.parametrize("n_at_once", [1, 4])
def test_a_rolling_pool_is_the_same_for_any_number_of_jobs(monkeypatch, n_at_once):
    monkeypatch.setattr(_pool, "_SIZE_AT_ONCE", {"cpu": n_at_once * 64 * 68})
    pools = [
        TrajectoryPool(flows(n_jobs=n_jobs), n_blocks=6, n_held=2, n_draws=10, seed=0) for n_jobs in (1, 2)
    ]
    for pool in pools:
        generator = torch.Generator().manual_seed(0)
        last = [pool.sample(8, generator) for _ in range(10)][-1]
    assert torch.equal(pools[0].paths, pools[1].paths)
    expected = build(n_blocks=6).paths[-len(pools[0].paths) :]
    torch.testing.assert_close(pools[0].paths, expected, rtol=0, atol=0)
    assert torch.isfinite(last.v_t).all()


def test_a_pool_is_the_same_whoever_listens(monkeypatch):
    """Flows side by side differ by rounding from those alone: the same ones always go together."""
    monkeypatch.setattr(_pool, "_SIZE_AT_ONCE", {"cpu": 4 * 64 * 68})
    expected = build(n_blocks=15).paths
    stops = []
    options = {"n_blocks": 15, "seed": 0}
    listening = TrajectoryPool(flows(), report=lambda n_blocks: stops.append(n_blocks), **options)
    assert len(stops) == 10
    assert torch.equal(listening.paths, expected)
    stopped = TrajectoryPool(flows(), report=lambda n_blocks: n_blocks >= 6, **options)
    assert len(stopped.blocks) == 9
    assert torch.equal(stopped.paths, expected[: 9 * 64])


def test_blocks_are_made_a_few_at_a_time(monkeypatch):
    sizes = []

    def make_blocks(seeds):
        sizes.append(len(seeds))
        return numbered(seeds)

    make_blocks.n_at_once = 1
    monkeypatch.setattr(_pool, "_LARGEST_PART", 2 * 3 * 2 * 4)
    pool = TrajectoryPool(make_blocks, n_blocks=7, seed=0)
    assert max(sizes) == 2
    assert sorted(set(pool.paths.flatten().tolist())) == [0, 1, 2, 3, 4, 5, 6]


def test_a_pool_without_expected_draws_keeps_its_blocks():
    pool = TrajectoryPool(numbered, n_blocks=9, n_held=3, seed=0)
    for _ in range(5):
        pool.sample(2, torch.Generator().manual_seed(0))
    assert pool.n_made == 3
    for options in ({"n_blocks": 0}, {"n_blocks": 3, "n_held": 0}):
        with pytest.raises(ValueError, match="at least one block"):
            TrajectoryPool(numbered, seed=0, **options)


def test_a_pool_takes_no_more_memory_than_it_is_given(monkeypatch):
    monkeypatch.setattr(_pool, "_LARGEST_POOL", 3 * 3 * 2 * 4)
    assert len(TrajectoryPool(numbered, n_blocks=20, seed=0).blocks) == 3
    half = TrajectoryPool(numbered, n_blocks=20, seed=0, dtype=torch.float16)
    assert len(half.blocks) == 6
    sample = half.sample(2, torch.Generator().manual_seed(0))
    assert sample.x_t.dtype == sample.v_t.dtype == torch.float32


def test_couplings_are_pairs_of_the_two_samples():
    source, target = ArraySampler(TARGET[:40] - 5), ArraySampler(TARGET)
    for coupling in ("independent", "exact", "sinkhorn"):
        couplings = Couplings(source, target, coupling=coupling, n_points=60, blur=0.1)
        pool = TrajectoryPool(couplings, n_blocks=2, seed=0)
        assert pool.paths.shape == (2 * 60, 2, 2)
        ends = {tuple(end) for end in pool.paths[:60, 1].tolist()}
        assert len(ends) == 60  # every target point once
        assert ends <= {tuple(row) for row in TARGET.tolist()}
        starts = {tuple(start) for start in pool.paths[:, 0].tolist()}
        assert starts <= {tuple(row) for row in (TARGET[:40] - 5).tolist()}


def test_a_pushforward_draws_moved_rows():
    sampler = ArraySampler(TARGET)
    moved = PushforwardSampler(sampler, lambda rows: rows + 3)
    drawn, expected = (each.draw(7, np.random.default_rng(0)) for each in (moved, sampler))
    np.testing.assert_array_equal(drawn, expected + 3)
    assert moved.n_rows == 200


def test_the_number_of_threads_is_given_back():
    n_threads = torch.get_num_threads()
    build(n_jobs=2)
    assert torch.get_num_threads() == n_threads


def test_samples_lie_on_the_paths_with_their_velocity():
    """Paths x(t) = c + t^2 at the nodes: the segment from node k to k + 1 has slope (2k + 1)/n."""
    offsets = torch.arange(5.0)
    nodes = torch.arange(4) / 3
    paths = (10 * offsets[:, None] + nodes**2)[..., None]
    pool = PathPool(paths)
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


def test_weighted_rows_are_drawn_as_often_as_they_weigh():
    weights = np.array([4.0, 1.0, 0.5, 2.5])
    sampler, rng = ArraySampler(np.arange(4.0)[:, None], weights), np.random.default_rng(0)
    assert sampler.n_rows == 4
    counts = sum(np.bincount(sampler.draw(4, rng).ravel().astype(int), minlength=4) for _ in range(2000))
    np.testing.assert_allclose(counts / 8000, weights / 8, atol=0.02)


def test_few_of_many_rows_are_spread_as_well():
    rows = np.random.default_rng(0).normal(size=(20_000, 2))
    sampler, rng = ArraySampler(rows), np.random.default_rng(1)
    draws = [sampler.draw(60, rng) for _ in range(300)]
    # Independent draws would have a deviation of 3.9.
    assert np.std([(drawn[:, 0] > 0).sum() for drawn in draws]) < 2
    assert abs(np.mean(draws, axis=(0, 1))).max() < 0.02


def test_rows_are_only_asked_for_in_parts(monkeypatch):
    """What lies on a disk is never read as a whole."""

    class OnDisk:
        def __init__(self, rows):
            self.rows, self.largest = rows, 0

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, places):
            part = self.rows[places]
            self.largest = max(self.largest, len(part))
            return part

    monkeypatch.setattr(_samplers, "_TREE_ROWS", 64)
    monkeypatch.setattr(_samplers, "_CHUNK_SIZE", 200)
    rows = OnDisk(np.random.default_rng(0).normal(size=(1000, 2)))
    sampler = ArraySampler(rows)
    assert rows.largest == 100
    assert sorted(sampler.order) == list(range(1000))
    right = [(sampler.draw(60, np.random.default_rng(k))[:, 0] > 0).sum() for k in range(200)]
    assert np.std(right) < 3


def test_paths_of_two_pools():
    first, second = (PathPool(torch.full((n, 2, 1), float(n)), torch.tensor([n])) for n in (3, 5))
    both = first.followed_by(second, 6)
    assert both.paths[:, 0, 0].tolist() == [3, 3, 3, 5, 5, 5]
    assert both.labels.tolist() == [3, 3, 3, 5, 5, 5]
    sample = both.sample(100, torch.Generator().manual_seed(0))
    assert torch.equal(sample.y.float(), sample.x_t[:, 0])


def test_stacked_blocks_have_a_part_from_each_maker():
    class Maker:
        n_paths, n_at_once = 3, 1

        def __init__(self, value):
            self.value = value

        def __call__(self, seeds):
            draws = [np.random.default_rng(seed).random() for seed in seeds]
            return self.value + torch.tensor(draws)[:, None, None, None].expand(-1, 3, 2, 1)

    stacked = StackedBlocks([Maker(0), Maker(10)])
    seeds = np.random.SeedSequence(0).spawn(4)
    blocks = stacked(seeds)
    assert blocks.shape == (4, stacked.n_paths, 2, 1) == (4, 6, 2, 1)
    assert ((blocks[:, :3] < 1) & (blocks[:, 3:] >= 10)).all()
    assert len(blocks.unique()) == 8  # each part of each block has a seed of its own
    torch.testing.assert_close(torch.cat([stacked(seeds[:1]), stacked(seeds[1:])]), blocks, rtol=0, atol=0)


def test_a_pool_reports_while_it_is_filled_and_can_be_stopped():
    reports = []

    def report(n_made):
        reports.append(n_made)
        return n_made >= 8

    pool = TrajectoryPool(numbered, n_blocks=25, seed=0, n_draws=10, report=report)
    assert reports == [3, 5, 8]
    assert len(pool) == 8 * 3
    for _ in range(10):
        pool.sample(2, torch.Generator().manual_seed(0))
    assert pool.n_made == 8


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
