import copy
import math

import joblib
import numpy as np
import pytest
import torch

from sklearn_nsgf.flow import (
    ArraySampler,
    GaussianSampler,
    SinkhornFlows,
    TrajectoryPool,
    _blocks,
    _pool,
    particle_flow,
)

TARGET = np.random.default_rng(0).uniform(size=(200, 2)).astype(np.float32)
# Numbers in a flow of 64 particles to 64 targets in two dimensions.
FLOW_SIZE = 64 * 68


def flows(**options):
    options = {"n_particles": 64, "blur": 0.1, "n_steps": 3, **options}
    return SinkhornFlows(GaussianSampler(np.ones(2)), ArraySampler(TARGET), **options)


def build(n_blocks=4, seed=0, **options):
    return TrajectoryPool(flows(**options), n_blocks=n_blocks, seed=seed)


class Numbered:
    """Makes blocks of three constant paths whose value is the number of the block."""

    n_paths, block_shape, differs = 3, (3, 2, 1), True

    def __init__(self, n_at_once=1, n_failing=0):
        self.n_at_once, self.sizes, self.n_failing, self.n_failed = n_at_once, [], n_failing, 0
        self.device = torch.device("cpu")

    def state_dict(self):
        return {"n_failed": self.n_failed}

    def load_state_dict(self, state):
        self.n_failed = state["n_failed"]

    def __call__(self, seeds):
        self.sizes.append(len(seeds))
        self.n_failed += self.n_failing * len(seeds)
        numbers = torch.tensor([float(seed.spawn_key[-1]) for seed in seeds])
        return numbers[:, None, None, None].expand(-1, *self.block_shape)


class Given:
    """A single block of given paths."""

    n_at_once, differs, n_failed = 1, False, 0

    def __init__(self, paths):
        self.paths, self.n_paths, self.block_shape = paths, len(paths), paths.shape

    def __call__(self, seeds):
        return self.paths[None]


def held_blocks(pool):
    return sorted(int(number) for number in pool.paths.unique())


@pytest.mark.parametrize("with_blocks", [False, True])
@pytest.mark.parametrize(("n_at_once", "n_held"), [(1, 3), (2, 5), (4, 8), (16, 6), (4, None)])
@pytest.mark.parametrize("n_failing", [0, 1])
def test_a_pool_goes_on_from_its_state(n_at_once, n_held, n_failing, with_blocks):
    """Wherever it is; blocks that no draw can see are not made again."""

    def new():
        maker = Numbered(n_at_once, n_failing)
        return TrajectoryPool(maker, n_blocks=30, seed=0, n_held=n_held, n_draws=60)

    for n_before in range(0, 60, 7):
        pool, again = new(), new()
        held_at_each_draw(pool, n_before)
        again.load_state_dict(copy.deepcopy(pool.state_dict(with_blocks=with_blocks)))
        samples = [each.sample(5, torch.Generator().manual_seed(0)) for each in (pool, again)]
        assert torch.equal(samples[0].x_t, samples[1].x_t)
        assert sum(again.maker.sizes) <= 3 * pool.n_held
        assert held_at_each_draw(pool, 70 - n_before) == held_at_each_draw(again, 70 - n_before)
        for name in ("n_made", "n_drawn", "is_cut"):
            assert getattr(pool, name) == getattr(again, name)
        assert pool.maker.n_failed == again.maker.n_failed


def held_at_each_draw(pool, n_draws):
    """Numbers of the blocks that each draw could see."""
    generator, held = torch.Generator().manual_seed(0), []
    for _ in range(n_draws):
        pool.sample(2, generator)
        held.append(sorted(int(number) for number in pool.blocks[: pool.n_made].unique()))
    return held


def test_the_pool_holds_the_particles_paths():
    pool = build()
    assert pool.paths.shape == (4 * 64, 4, 2)
    assert len(pool) == 4 * 64
    assert pool.maker.n_converged == pool.maker.n_problems > 0
    assert 0 < pool.maker.marginal_error <= 1e-3

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


@pytest.mark.parametrize("first_use", [len, lambda pool: pool.paths, lambda pool: pool.fill()])
def test_a_pool_is_filled_when_it_is_first_needed(first_use):
    maker = Numbered()
    pool = TrajectoryPool(maker, n_blocks=5, n_held=3, seed=0)
    assert (pool.n_held, pool.n_made, maker.sizes) == (3, 0, [])
    for _ in range(2):
        first_use(pool)
        assert sum(maker.sizes) == pool.n_made == 3
    by_a_draw = TrajectoryPool(Numbered(), n_blocks=5, n_held=3, seed=0)
    by_a_draw.sample(1, torch.Generator().manual_seed(0))
    assert torch.equal(by_a_draw.paths, pool.paths)


def test_a_pool_doubles_when_more_is_due():
    """Of 32 blocks two are there at once, and 2 + 30 k / 100 or more at draw k: all at half of the draws."""
    maker = Numbered()
    pool = TrajectoryPool(maker, n_blocks=32, n_draws=100, seed=0)
    held = held_at_each_draw(pool, 100)
    due = [2 + math.ceil(30 * k / 100) for k in range(100)]
    assert [len(blocks) for blocks in held] == [2 ** math.ceil(math.log2(n_due)) for n_due in due]
    assert all(blocks == list(range(len(blocks))) for blocks in held)
    assert len(held[46]) == 16
    assert len(held[47]) == 32
    assert maker.sizes == [1, 1, 2, 4, 8, 16]


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("n_at_once", [1, 4])
def test_a_pool_that_grows_holds_the_blocks_of_a_full_one(monkeypatch, n_at_once, n_jobs):
    """Flows side by side differ by rounding from those alone: the same ones always go together."""
    monkeypatch.setattr(_blocks, "_SIZE_AT_ONCE", {"cpu": n_at_once * FLOW_SIZE})
    full = build(n_blocks=15, n_jobs=1).paths.unflatten(0, (15, 64))
    pool = TrajectoryPool(flows(n_jobs=n_jobs), n_blocks=15, n_draws=12, seed=0)
    generator, sizes = torch.Generator().manual_seed(0), []
    for _ in range(12):
        pool.sample(8, generator)
        sizes.append(pool.n_made)
        assert torch.equal(pool.blocks[: pool.n_made], full[: pool.n_made])
    assert list(dict.fromkeys(sizes)) == {1: [2, 4, 8, 15], 4: [5, 13, 15]}[n_at_once]


@pytest.mark.parametrize(
    ("n_failing", "n_made", "n_rolled"),
    [(0, 32, 32), (1, 16, 15), (5, 4, 3), (7, 4, 3), (8, 2, 2), (20, 2, 2)],
)
def test_a_pool_makes_no_more_once_15_problems_have_failed(n_failing, n_made, n_rolled):
    """So many in each block: those that are due next are not made."""
    maker = Numbered(n_failing=n_failing)
    pool = TrajectoryPool(maker, n_blocks=32, n_draws=100, seed=0)
    held = held_at_each_draw(pool, 100)
    assert held[-1] == list(range(n_made))
    assert pool.is_cut == (n_made < 32)
    # Two held at a time are renewed one by one.
    rolling = TrajectoryPool(Numbered(n_failing=n_failing), n_blocks=32, n_held=2, n_draws=100, seed=0)
    assert held_at_each_draw(rolling, 100)[-1] == [n_rolled - 2, n_rolled - 1]


def test_draws_come_from_all_blocks_made_so_far():
    pool = TrajectoryPool(Numbered(), n_blocks=8, n_draws=10, seed=0)
    generator = torch.Generator().manual_seed(0)
    for n_made in [2, 4, 4, 4, 8, 8]:
        counts = torch.bincount(pool.sample(4000, generator).x_t[:, 0].long(), minlength=8)
        assert pool.n_made == n_made
        assert counts[:n_made].min() > 0.8 * 4000 / n_made
        assert not counts[n_made:].any()


def test_blocks_that_do_not_differ_are_made_once():
    pool = TrajectoryPool(Given(torch.rand(3, 2, 1)), n_blocks=9, n_held=4, n_draws=20, seed=0)
    assert held_at_each_draw(pool, 20) and pool.n_made == pool.n_held == len(pool.blocks) == 1


def test_a_pool_that_rolls_holds_the_newest_blocks():
    pool = TrajectoryPool(Numbered(), n_blocks=20, n_held=5, n_draws=100, seed=0)
    held = held_at_each_draw(pool, 100)
    assert held[0] == [0, 1]
    assert held[-1] == [15, 16, 17, 18, 19]
    assert all(blocks == list(range(max(0, blocks[-1] - 4), blocks[-1] + 1)) for blocks in held)
    newest = [blocks[-1] for blocks in held]
    due = [1 + math.ceil(18 * k / 100) for k in range(100)]
    # Early by doubling at first.
    assert newest == [1, *[3] * 11, *[4] * 5, *due[17:]]
    assert pool.blocks.shape == (5, 3, 2, 1)


def test_a_pool_smaller_than_a_group_shows_every_block():
    """64 blocks that are best made together, of which 8 are held: on average each is seen by 70 draws."""
    pool = TrajectoryPool(Numbered(64), n_blocks=64, n_held=8, n_draws=560, seed=0)
    held = held_at_each_draw(pool, 560)
    assert held[0] == list(range(8))
    n_draws = np.bincount(np.concatenate(held), minlength=64)
    assert n_draws.min() > 50
    assert n_draws.max() < 75


@pytest.mark.parametrize("n_draws", [10, 40, 400])
@pytest.mark.parametrize("n_at_once", [1, 4, 64])
@pytest.mark.parametrize("n_held", [1, 3, 8, 64, 70, 150])
@pytest.mark.parametrize("is_full", [False, True])
def test_no_block_is_made_that_no_draw_sees(n_held, n_at_once, n_draws, is_full):
    maker = Numbered(n_at_once)
    pool = TrajectoryPool(maker, n_blocks=150, n_held=n_held, n_draws=n_draws, seed=0)
    if is_full:
        pool.fill()
        assert pool.n_made == n_held
        assert held_blocks(pool) == list(range(n_held))
    seen = set(np.concatenate(held_at_each_draw(pool, n_draws)))
    assert seen == set(range(pool.n_made))
    assert sum(maker.sizes) == pool.n_made
    if n_draws > 150:
        assert pool.n_made == 150


@pytest.mark.parametrize("n_at_once", [1, 4])
def test_a_rolling_pool_is_the_same_for_any_number_of_jobs(monkeypatch, n_at_once):
    monkeypatch.setattr(_blocks, "_SIZE_AT_ONCE", {"cpu": n_at_once * FLOW_SIZE})
    options = {"n_blocks": 6, "n_held": 2, "n_draws": 10, "seed": 0}
    pools = [TrajectoryPool(flows(n_jobs=n_jobs), **options) for n_jobs in (1, 2, 2)]
    pools[2].fill()
    for pool in pools:
        generator = torch.Generator().manual_seed(0)
        last = [pool.sample(8, generator) for _ in range(10)][-1]
    assert torch.equal(pools[0].paths, pools[1].paths)
    assert torch.equal(pools[0].paths, pools[2].paths)
    expected = flows()(np.random.SeedSequence(0).spawn(6)[4:])
    torch.testing.assert_close(pools[0].paths, expected.flatten(0, 1), rtol=0, atol=0)
    assert torch.isfinite(last.v_t).all()


def test_blocks_are_made_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(_pool, "_LARGEST_PART", 2 * 3 * 2 * 4)
    maker = Numbered()
    pool = TrajectoryPool(maker, n_blocks=7, seed=0)
    assert held_blocks(pool) == [0, 1, 2, 3, 4, 5, 6]
    assert max(maker.sizes) == 2


def test_a_pool_without_expected_draws_keeps_its_blocks():
    pool = TrajectoryPool(Numbered(), n_blocks=9, n_held=3, seed=0)
    for _ in range(5):
        pool.sample(2, torch.Generator().manual_seed(0))
    assert pool.n_made == 3
    for options in ({"n_blocks": 0}, {"n_blocks": 3, "n_held": 0}):
        with pytest.raises(ValueError, match="at least one block"):
            TrajectoryPool(Numbered(), seed=0, **options)


def test_a_pool_takes_no_more_memory_than_it_is_given(monkeypatch):
    monkeypatch.setattr(_pool, "_LARGEST_POOL", 3 * 3 * 2 * 4)
    pool = TrajectoryPool(Numbered(), n_blocks=20, seed=0)
    assert pool.n_held == len(held_blocks(pool)) == 3
    half = TrajectoryPool(Numbered(), n_blocks=20, seed=0, dtype=torch.float16)
    assert half.n_held == 6
    sample = half.sample(2, torch.Generator().manual_seed(0))
    assert half.blocks.dtype == torch.float16
    assert sample.x_t.dtype == sample.v_t.dtype == torch.float32


def test_a_pool_goes_on_where_an_interrupt_has_left_it():
    class Interrupted(Numbered):
        def __call__(self, seeds):
            if len(self.sizes) == 2 and not self.is_interrupted:
                self.is_interrupted = True
                raise KeyboardInterrupt
            return super().__call__(seeds)

        is_interrupted = False

    pool = TrajectoryPool(Interrupted(), n_blocks=5, n_draws=4, seed=0)
    generator = torch.Generator().manual_seed(0)
    pool.sample(1, generator)
    with pytest.raises(KeyboardInterrupt):
        pool.sample(1, generator)
    assert pool.n_made == 2
    pool.sample(1, generator)
    assert pool.n_made == 4
    assert held_blocks(pool) == [0, 1, 2, 3, 4]


def test_samples_lie_on_the_paths_with_their_velocity():
    """Paths x(t) = c + t^2 at the nodes: the segment from node k to k + 1 has slope (2k + 1)/n."""
    offsets = torch.arange(5.0)
    nodes = torch.arange(4) / 3
    paths = (10 * offsets[:, None] + nodes**2)[..., None]
    pool = TrajectoryPool(Given(paths), n_blocks=1, seed=0)
    sample = pool.sample(1000, torch.Generator().manual_seed(0))
    assert sample.labels is None
    segment = (sample.t * 3).floor()
    torch.testing.assert_close(sample.v_t[:, 0], (2 * segment + 1) / 3)
    path = (sample.x_t[:, 0] / 10).floor()
    expected = 10 * path + (segment / 3) ** 2 + (sample.t - segment / 3) * sample.v_t[:, 0]
    torch.testing.assert_close(sample.x_t[:, 0], expected, rtol=0, atol=1e-5)
    assert torch.bincount(path.long()).min() > 150
    assert torch.histc(sample.t, 10, 0, 1).min() > 60


def test_samples_carry_the_class_of_their_path():
    class Classes(Numbered):
        def __call__(self, seeds):
            return super().__call__(seeds) * 10 + torch.arange(3.0)[:, None, None]

    labels = torch.tensor([0, 1, 2])
    pool = TrajectoryPool(Classes(), n_blocks=9, n_held=4, n_draws=20, seed=0, labels=labels)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        sample = pool.sample(50, generator)
        assert torch.equal(sample.labels.float(), sample.x_t[:, 0] % 10)


@pytest.mark.parametrize(("n_held", "expected"), [(None, 2), (1, 1), (100, 2)])
def test_a_share_of_the_blocks_is_held(n_held, expected):
    pool = TrajectoryPool(flows(), n_blocks=13, seed=0, n_held=n_held, held_share=1 / 8, n_draws=20)
    assert pool.n_held == expected
    first = pool.sample(4, torch.Generator().manual_seed(0))
    assert first.x_t.shape == (4, 2)
    for _ in range(20):
        pool.sample(4, torch.Generator().manual_seed(0))
    assert pool.n_made == 13


def test_times_end_where_they_are_told_to():
    batch = build().sample(500, torch.Generator().manual_seed(0), t_end=0.5)
    assert 0.45 < batch.t.max() <= 0.5
