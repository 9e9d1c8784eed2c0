import numpy as np
import pytest

from sklearn_nsgf.flow import ArraySampler, GaussianSampler, MixtureSampler, PushforwardSampler, _samplers

TARGET = np.random.default_rng(0).uniform(size=(200, 2)).astype(np.float32)


def test_a_pushforward_draws_moved_rows():
    sampler = ArraySampler(TARGET)
    moved = PushforwardSampler(sampler, lambda rows: rows + 3)
    drawn, expected = (each.draw(7, np.random.default_rng(0)) for each in (moved, sampler))
    np.testing.assert_array_equal(drawn, expected + 3)
    assert moved.n_rows == 200


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


@pytest.mark.parametrize("factor", [None, np.zeros((2, 1))])
def test_gaussian_sampler_with_a_mean(factor):
    """The same draw, moved."""
    standard, moved = (GaussianSampler([1.0, 2.0], factor=factor, mean=mean) for mean in (0.0, [5.0, -3.0]))
    drawn = [sampler.draw(100, np.random.default_rng(0)) for sampler in (standard, moved)]
    np.testing.assert_array_equal(drawn[1], drawn[0] + np.array([5, -3], dtype=np.float32))


def test_gaussian_sampler_with_a_factor():
    factor = np.array([[1.0, 0.0], [2.0, 1.0], [0.0, 0.0], [0.0, -1.0]])
    std, rest = [1.0, 3.0, 2.0, 1.0], [1.0, 0.0, 0.0, 0.5]
    drawn = GaussianSampler(std, rest, factor).draw(100_000, np.random.default_rng(0))
    assert drawn.dtype == np.float32
    expected = np.diag(std) @ (factor @ factor.T + np.diag(np.square(rest))) @ np.diag(std)
    np.testing.assert_allclose(drawn.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.01 * expected.max())


def test_gaussian_sampler_with_a_root():
    root = np.array([[1.0, 0.0], [0.6, 0.8]])
    drawn = GaussianSampler([1.0, 3.0], root).draw(100_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.cov(drawn.T), [[1, 1.8], [1.8, 9]], atol=0.05)


def test_gaussian_sampler_begins_no_sequence_for_few_rows(monkeypatch):
    """To scramble one takes as long for a few rows as for many."""
    sequences = []

    class Counted(_samplers.SobolEngine):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            sequences.append(arguments)

    monkeypatch.setattr(_samplers, "SobolEngine", Counted)
    sampler, rng = GaussianSampler([1.0, 2.0]), np.random.default_rng(0)
    assert len(np.unique(sampler.draw(31, rng))) == 62
    assert not sequences
    assert len(np.unique(sampler.draw(32, rng))) == 64
    assert sequences == [(2,)]


def test_more_rows_than_there_are():
    with pytest.raises(ValueError, match="11 rows were asked for, of 10"):
        ArraySampler(np.zeros((10, 1))).draw(11, np.random.default_rng(0))


def constants(*numbers):
    """A sampler of `n` equal rows for each, whose value tells which one it is."""
    return [ArraySampler(np.full((n, 1), float(k))) for k, n in enumerate(numbers)]


def counts_of(mixture, n_samples, n_draws, seed=0):
    rng = np.random.default_rng(seed)
    n_samplers = len(mixture.samplers)
    draws = [mixture.draw(n_samples, rng).ravel().astype(int) for _ in range(n_draws)]
    return np.array([np.bincount(draw, minlength=n_samplers) for draw in draws])


@pytest.mark.parametrize("weights", [[1, 1, 1], [0.7, 0.2, 0.1], [5, 0.3, 11.17], [1e-9, 1, 1e9]])
@pytest.mark.parametrize("n_samples", [1, 2, 7, 30])
def test_a_mixture_takes_the_share_of_each_sampler(weights, n_samples):
    """Rounded down or up to the next whole number, so that nothing but the rounding is left to chance."""
    counts = counts_of(MixtureSampler(constants(50, 50, 50), weights), n_samples, 400)
    shares = n_samples * np.array(weights) / np.sum(weights)
    assert np.all(counts.sum(axis=1) == n_samples)
    assert np.all(np.abs(counts - shares) < 1)
    assert np.all(np.abs(counts.mean(axis=0) - shares) < 5 * 0.5 / np.sqrt(400))


def test_the_mean_share_of_a_mixture_is_exact():
    """Over equally spaced places in the draw of the rounding, in place of random ones."""

    class Places:
        def __init__(self, n):
            self.places = iter((np.arange(n) + 0.5) / n)

        def random(self):
            return next(self.places)

    class Counter:
        n_rows, n_features = np.inf, 1

        def __init__(self):
            self.n_drawn = 0

        def draw(self, n_samples, rng):
            self.n_drawn += n_samples
            return np.zeros((n_samples, 1), np.float32)

    samplers, rng = [Counter() for _ in range(3)], Places(100)
    mixture = MixtureSampler(samplers, [0.5, 0.3, 0.2])
    for _ in range(100):
        mixture.draw(7, rng)
    assert [each.n_drawn for each in samplers] == [350, 210, 140]


@pytest.mark.parametrize(
    ("numbers", "weights", "expected"),
    [
        ((70, 30), [70, 30], 100),
        ((3, 3, 3), [0.1, 0.1, 0.1], 9),
        ((10, 1), [1, 1], 2),
        ((10, 1), [1, 2], 1),  # of two rows the share of the second is more than one
        ((1, 1), [1, 1e9], 1),
        ((5, 100), [1, 2], 15),
    ],
)
def test_a_mixture_never_asks_for_more_than_there_is(numbers, weights, expected):
    mixture = MixtureSampler(constants(*numbers), weights)
    assert mixture.n_rows == expected
    for n_samples in range(1, expected + 1):
        assert np.all(counts_of(mixture, n_samples, 50) <= numbers)
    with pytest.raises(ValueError, match=f"{expected + 1} rows were asked for, of {expected}"):
        mixture.draw(expected + 1, np.random.default_rng(0))
    shares = (expected + 1) * np.array(weights) / np.sum(weights)
    assert np.any(np.ceil(shares - 1e-9) > numbers)


def test_a_mixture_of_samplers_without_an_end():
    noise = GaussianSampler(np.ones(2))
    assert MixtureSampler([noise, noise], [1, 2]).n_rows == np.inf
    half_noise = MixtureSampler([noise, ArraySampler(TARGET)], [1, 1])
    assert (half_noise.n_rows, half_noise.n_features) == (400, 2)
    drawn = half_noise.draw(20, np.random.default_rng(3))
    assert drawn.dtype == np.float32
    assert {tuple(row) for row in drawn[10:].tolist()} <= {tuple(row) for row in TARGET.tolist()}
    np.testing.assert_array_equal(drawn, half_noise.draw(20, np.random.default_rng(3)))
    assert not np.array_equal(drawn, half_noise.draw(20, np.random.default_rng(4)))
    nested = MixtureSampler([half_noise, noise], [1, 3])
    assert nested.draw(np.int64(8), np.random.default_rng(0)).shape == (8, 2)


@pytest.mark.parametrize(
    ("samplers", "weights", "message"),
    [
        ([], [], "0 samplers and 0 weights"),
        (constants(3, 3), [1], "2 samplers and 1 weights: expected a weight for each"),
        (constants(3, 3), [1, 0], "expected positive numbers"),
        (constants(3, 3), [1, np.inf], "expected positive numbers"),
        (constants(3, 3), [1, np.nan], "expected positive numbers"),
        ([*constants(3), ArraySampler(TARGET)], [1, 1], r"\[1, 2\] features; expected the same"),
    ],
)
def test_bad_mixtures(samplers, weights, message):
    with pytest.raises(ValueError, match=message):
        MixtureSampler(samplers, weights)


def test_samplers_know_their_features():
    sampler = ArraySampler(TARGET)
    moved = PushforwardSampler(sampler, lambda rows: rows)
    assert sampler.n_features == moved.n_features == 2
    assert GaussianSampler(np.ones(5)).n_features == 5
