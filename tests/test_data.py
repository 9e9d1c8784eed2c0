"""What comes in: frames, and rows that are read as seldom as need be."""

import numpy as np
import pytest
from clouds import rows_of
from scipy.stats import ks_2samp, kstest, multivariate_normal, norm
from sklearn.covariance import ledoit_wolf

from sklearn_nsgf import FlowMatchingTransport
from sklearn_nsgf._data import clusters as clusters_module
from sklearn_nsgf._data import moments as moments_module
from sklearn_nsgf._data.choice import find_frame, frame_like
from sklearn_nsgf._data.layout import Layout
from sklearn_nsgf._data.noise import Noise, NoiseMixture, normal_columns_of
from sklearn_nsgf._data.rows import SampleRows
from sklearn_nsgf.metrics import energy_distance
from sklearn_nsgf.networks import UNet


class Counted(SampleRows):
    """Counts the rows that are read."""

    n_read = 0

    def __getitem__(self, places):
        rows = super().__getitem__(places)
        self.n_read += len(rows)
        return rows


def has_clusters(frame):
    return isinstance(frame.noises[0], NoiseMixture)


def linear_map(source, target):
    """By hand: the optimal map between the normal distributions with these moments."""
    covariances = [np.cov(each.T, ddof=0) for each in (source, target)]
    root, inverse = (matrix_power(covariances[0], power) for power in (0.5, -0.5))
    matrix = inverse @ matrix_power(root @ covariances[1] @ root, 0.5) @ inverse
    return lambda X: (X - source.mean(axis=0)) @ matrix + target.mean(axis=0)


def matrix_power(matrix, power):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**power) @ vectors.T


def correlated(n_rows, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_rows, 3)) @ rng.normal(size=(3, 3)) + rng.normal(size=3)


def test_moments_of_a_constant_are_exact():
    """Also of a number whose sums are rounded, or no floats."""
    with np.errstate(over="ignore"):
        largest = moments_module.moments_of(np.full((2, 1), 1.7e308), with_correlation=False)
    assert (largest.mean[0], largest.std[0]) == (1.7e308, 0)
    X = np.column_stack([np.full(9999, 0.1), np.random.default_rng(0).normal(size=9999)])
    moments = moments_module.moments_of(rows_of(X), with_correlation=True)
    assert (moments.mean[0], moments.std[0]) == (0.1, 0)
    assert moments.std[1] == pytest.approx(X[:, 1].std())


def test_moments_read_a_sample_three_times():
    """Mean, largest deviation, variance; and a sample that stands on both sides only once."""
    X = np.random.default_rng(0).normal(size=(5000, 4))
    rows = Counted(X, Layout((4,)))
    frame = find_frame(None, rows, "shift", per_feature=True)
    assert rows.n_read <= 3 * 5000 + 3
    np.testing.assert_allclose(frame.source_mean, X.mean(axis=0))
    np.testing.assert_allclose(frame.scale, X.std(axis=0))


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("kind", ["none", "shift", "scale", "linear"])
def test_a_frame_alone_is_the_map_that_its_name_says(kind, per_feature, monkeypatch):
    """With the covariance as it is: shrinkage is scikit-learn's."""
    monkeypatch.setattr(moments_module, "ledoit_wolf", lambda X, assume_centered: (X.T @ X / len(X), 0.0))
    source, target, new = correlated(300, 0), 5 * correlated(200, 1), correlated(50, 2)
    frame = find_frame(source, target, kind, per_feature=per_feature)
    ratio = target.std(axis=0) / source.std(axis=0)
    # The map is optimal for distances in these units.
    unit = target.std(axis=0) if per_feature else 1.0
    shift = target.mean(axis=0) - source.mean(axis=0)
    expected = {
        "none": new,
        "shift": new + shift,
        "scale": (new - source.mean(axis=0)) * ratio + target.mean(axis=0),
        "linear": linear_map(source / unit, target / unit)(new / unit) * unit,
    }[kind]
    Z = frame.encode(new, 0.0)
    np.testing.assert_allclose(frame.decode(Z, 1.0, float), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(frame.decode(Z, 0.0, float), new, rtol=0, atol=1e-9)
    halfway = frame.decode(Z, 0.5, float)
    np.testing.assert_allclose(halfway, (new + expected) / 2, rtol=0, atol=1e-9)
    np.testing.assert_allclose(frame.encode(halfway, 0.5), Z, rtol=0, atol=1e-9)
    velocity = frame.velocity(Z, np.zeros_like(Z), np.full(50, 0.3))
    np.testing.assert_allclose(velocity, expected - new, rtol=0, atol=1e-9)


@pytest.mark.parametrize("exponent", [-1000, -540, 400])
def test_the_linear_frame_scales_with_the_source(exponent):
    """By powers of two it does so exactly, also where squares are no floats."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3)), rng.normal(size=(50, 3))
    frames = [
        find_frame(each, target, "linear", per_feature=True) for each in (source, np.ldexp(source, exponent))
    ]
    np.testing.assert_array_equal(frames[1].axes, frames[0].axes)
    np.testing.assert_array_equal(frames[1].at_source, np.ldexp(frames[0].at_source, exponent))


def test_a_source_that_is_a_point_in_the_units_of_the_target():
    rng = np.random.default_rng(0)
    source, target = 1e-25 * rng.normal(size=(13, 3)), rng.normal(size=(10, 3))
    target[0, 0] = 1e300
    frame = find_frame(source, target, "linear", per_feature=False)
    assert np.isfinite(frame.decode(frame.encode(source, 0.0), 1.0, float)).all()


def test_the_linear_frame_makes_both_samples_alike():
    source, target = correlated(5000, 0), correlated(5000, 1)
    frame = find_frame(source, target, "linear", per_feature=True)
    moments = [np.cov(Z.T) for Z in (frame.encode(source, 0.0), frame.encode(target, 1.0))]
    np.testing.assert_allclose(*moments, rtol=0, atol=0.01)
    np.testing.assert_allclose(moments[1].diagonal(), 1, atol=0.01)


@pytest.mark.parametrize("kind", ["shift", "scale", "linear"])
def test_constant_columns(kind):
    """One in the target, one in the source, one in both."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(50, 4)), rng.normal(size=(40, 4))
    target[:, 0], source[:, 1], target[:, 2], source[:, 2] = 255.0, -1.0, 7.0, 7.0
    frame = find_frame(source, target, kind, per_feature=True)
    moved = frame.decode(frame.encode(source, 0.0), 1.0, float)
    np.testing.assert_array_equal(moved[:, 0], 255.0)
    np.testing.assert_array_equal(moved[:, 2], 7.0)
    assert np.isfinite(moved).all()
    np.testing.assert_allclose(frame.decode(frame.encode(source, 0.0), 0.0, float), source, atol=1e-12)


def test_noise_has_the_covariance_of_the_data():
    X = correlated(5000, 0)
    for per_feature in (False, True):
        frame = find_frame(None, rows_of(X), "auto", per_feature=per_feature)
        assert (frame.kind, frame.charts) == ("linear", None)
        noise = frame.decode(frame.draw_noise(50_000, np.random.RandomState(0)), 0.0, float)
        np.testing.assert_allclose(np.cov(noise.T), np.cov(X.T), rtol=0.05, atol=0.02)
        np.testing.assert_allclose(noise.mean(axis=0), X.mean(axis=0), atol=0.05)
    frame = find_frame(None, rows_of(X), "scale", per_feature=True)
    noise = frame.decode(frame.draw_noise(50_000, np.random.RandomState(0)), 0.0, float)
    np.testing.assert_allclose(np.cov(noise.T), np.diag(X.var(axis=0)), rtol=0.05, atol=0.05)


def covariance_of_noise(frame):
    """In the units of the data."""
    return class_covariance(frame, 0)


def wide(n_rows, rank=5, n_features=1100, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, rank)) @ rng.normal(size=(rank, n_features)) + rng.normal(size=n_features)
    X[:, 7] = 255.0
    return X


@pytest.mark.usefixtures("one_normal_distribution")
@pytest.mark.parametrize("per_feature", [False, True])
def test_noise_of_many_features_has_the_covariance_of_data_of_low_rank(per_feature, monkeypatch):
    """Without shrinkage, which has its own test; to the rounding of single precision."""
    monkeypatch.setattr(moments_module, "_shrinkage", lambda X: 0.0)
    X = wide(400)
    frame = find_frame(None, rows_of(X), "auto", per_feature=per_feature)
    assert (frame.kind, frame.charts) == ("linear", None)
    expected = np.cov(X.T, ddof=0)
    np.testing.assert_allclose(covariance_of_noise(frame), expected, rtol=0, atol=1e-5 * expected.max())
    noise = frame.decode(frame.draw_noise(20_000, np.random.RandomState(0)), 0.0, float)
    np.testing.assert_array_equal(noise[:, 7], 255.0)
    # Five standard errors of a covariance.
    atol = 5 * expected.max() * np.sqrt(2 / 20_000)
    np.testing.assert_allclose(np.cov(noise[:, :20].T), expected[:20, :20], rtol=0, atol=atol)


@pytest.mark.usefixtures("one_normal_distribution")
@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("n_rows", [3, 10, 100])
def test_noise_of_many_features_is_shrunk_by_ledoit_and_wolf(n_rows, per_feature):
    """All directions of few rows are kept: correlations are those of the shrunk covariance."""
    X = wide(n_rows, rank=50) + np.random.default_rng(1).normal(size=(n_rows, 1100))
    X[:, 7] = 255.0
    X[:, :500] *= 10
    std = X.std(axis=0)
    frame = find_frame(None, rows_of(X), "linear", per_feature=per_feature)
    covariance = covariance_of_noise(frame)
    np.testing.assert_allclose(covariance.diagonal(), std**2, rtol=1e-5)
    unit = np.where(std > 0, std, 1) if per_feature else std.max()
    shrunk, _ = ledoit_wolf((X - X.mean(axis=0)) / unit, assume_centered=True)
    unit = std / np.where(std > 0, np.sqrt(shrunk.diagonal()), 1)
    expected = unit[:, None] * shrunk * unit
    np.fill_diagonal(expected, std**2)
    np.testing.assert_allclose(covariance, expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.usefixtures("one_normal_distribution")
def test_noise_of_many_features_has_the_variances_of_all_rows(monkeypatch):
    """Also of features that hardly vary, or do not, in the rows from which correlations are estimated."""
    monkeypatch.setattr(moments_module, "FACTOR_SIZE", 300 * 1100)
    monkeypatch.setattr(moments_module, "MAX_RANK", 20)
    X = wide(4000, rank=50).astype(np.float32)
    X[:, :5] = np.arange(4000)[:, None] == np.arange(5)
    frame = find_frame(None, rows_of(X), "auto", per_feature=False)
    assert frame.noises[0].factor.shape == (1100, 20)
    covariance = covariance_of_noise(frame)
    np.testing.assert_allclose(covariance.diagonal(), X.var(axis=0, dtype=float), rtol=1e-5)
    assert abs(covariance[:5, :5] - np.diag(covariance[:5, :5].diagonal())).max() < 0.01 * covariance[0, 0]


@pytest.mark.usefixtures("one_normal_distribution")
@pytest.mark.parametrize("X", [wide(2), np.full((5, 1100), 3.0, dtype=np.float32)])
def test_noise_of_many_features_from_next_to_nothing(X):
    """Two rows, whose covariance is not shrunk, and a constant."""
    frame = find_frame(None, rows_of(X), "auto", per_feature=False)
    np.testing.assert_allclose(covariance_of_noise(frame).diagonal(), X.var(axis=0), rtol=1e-5)
    assert np.isfinite(frame.decode(frame.draw_noise(9, np.random.RandomState(0)), 0.0, float)).all()


@pytest.mark.usefixtures("one_normal_distribution")
def test_independent_features_stay_independent():
    rows = rows_of(np.random.default_rng(0).normal(size=(50, 1100)))
    frame = find_frame(None, rows, "auto", per_feature=True)
    factor = frame.noises[0].factor
    assert abs(factor @ factor.T).max() < 0.05


def by_class(X, codes):
    return rows_of(X), codes


def covariance_in_units(frame, noise):
    """Of a normal distribution, in the units of the data."""
    root = np.eye(noise.n_features) if noise.root is None else noise.root.astype(float)
    root = root if root.ndim == 2 else np.diag(root)
    correlation = root @ root.T
    if noise.factor is not None:
        correlation = correlation + noise.factor.astype(float) @ noise.factor.T
    std = frame.scale * noise.std
    return std[:, None] * correlation * std


def class_covariance(frame, code):
    return covariance_in_units(frame, frame.noises[code])


@pytest.mark.parametrize("per_feature", [False, True])
def test_noise_of_a_class_has_its_mean_and_covariance(per_feature):
    turned = np.array([[1.0, 2.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 3.0]])
    members = [correlated(5000, 0) - 4, 10 * correlated(2000, 1) @ turned]
    X, codes = np.concatenate(members), np.repeat([0, 1], [5000, 2000])
    order = np.random.default_rng(0).permutation(7000)
    rows, codes = by_class(X[order], codes[order])
    frame = find_frame(None, rows, "linear", per_feature=per_feature, codes=codes)
    drawn_codes = np.tile([1, 0], 50_000)
    noise = frame.draw_noise(100_000, np.random.RandomState(0), drawn_codes)
    noise = frame.decode(noise, 0.0, float)
    for code, own in enumerate(members):
        drawn, std = noise[drawn_codes == code], own.std(axis=0)
        np.testing.assert_allclose(drawn.mean(axis=0) / std, own.mean(axis=0) / std, atol=0.03)
        expected = np.cov(own.T, ddof=0) / std / std[:, None]
        np.testing.assert_allclose(class_covariance(frame, code) / std / std[:, None], expected, atol=0.02)
        np.testing.assert_allclose(np.cov(drawn.T) / std / std[:, None], expected, atol=0.04)
    assert len(find_frame(None, rows, "scale", per_feature=per_feature, codes=codes).noises) == 1


@pytest.mark.parametrize("n_features", [3, 1100])
def test_few_rows_of_a_class_count_beside_those_of_all_classes(n_features, monkeypatch):
    """The formula, from moments of the class, and of all rows without the mean of their class."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, n_features)) @ np.diag(np.linspace(1, 2, n_features))
    X[:, 1] += X[:, 0]
    codes = np.repeat([0, 1, 2], [40, 19, 1])
    X[codes == 1] *= 3
    X[codes == 1, 2] = 0.5
    wide_options = {"with_correlation": n_features == 3, "with_factor": n_features > 3}
    own = [moments_module.moments_of(X[codes == code], **wide_options) for code in (0, 1)]
    deviations = [
        (X[codes == code] - X[codes == code].mean(axis=0)) * np.sqrt(n / (n - 1))
        for code, n in ((0, 40), (1, 19))
    ]
    shared = moments_module.moments_of(np.concatenate(deviations), **wide_options)

    def correlation(moments):
        if moments.factor is None:
            return moments.correlation
        answer = moments.factor.astype(float) @ moments.factor.T
        np.fill_diagonal(answer, 1)
        return answer

    expected = []
    for moments, n in zip([*own, shared], (40, 19, 1), strict=True):
        weight = (n - 1) / (n - 1 + 5 + n_features / 10)
        std = moments.std**weight * shared.std ** (1 - weight)
        std[2] = np.sqrt(1 - weight) * shared.std[2] if n == 19 else std[2]
        mean = weight * correlation(moments) + (1 - weight) * correlation(shared)
        expected.append(std[:, None] * mean * std)
    rows, codes = by_class(X, codes)
    frame = find_frame(None, rows, "linear", per_feature=True, codes=codes)
    for code in range(3):
        np.testing.assert_allclose(
            class_covariance(frame, code), expected[code], atol=1e-5 * expected[1].max()
        )
        mean = frame.noises[code].mean * frame.scale + X.mean(axis=0)
        np.testing.assert_allclose(mean, X[codes == code].mean(axis=0), atol=1e-9)
    monkeypatch.setattr(moments_module, "MAX_CLASS_SIZE", 1)
    frame = find_frame(None, rows, "linear", per_feature=True, codes=codes)
    assert frame.noises[0].root is frame.noises[1].root and frame.noises[0].factor is frame.noises[1].factor
    for code in range(3):
        std = np.sqrt(expected[code].diagonal())
        shared_correlation = std[:, None] * correlation(shared) * std
        found = class_covariance(frame, code)
        np.testing.assert_allclose(found, shared_correlation, atol=1e-5 * expected[1].max())


def test_classes_of_single_rows_have_the_covariance_of_all():
    X = correlated(30, 0)
    rows, codes = by_class(X, np.arange(30))
    frame = find_frame(None, rows, "linear", per_feature=True, codes=codes)
    alone = find_frame(None, rows_of(X), "linear", per_feature=True)
    np.testing.assert_allclose(class_covariance(frame, 7), class_covariance(alone, 0), rtol=1e-9)
    np.testing.assert_allclose(frame.decode(frame.noises[7].mean[None], 0.0, float)[0], X[7])


@pytest.mark.parametrize("scale", [1e-300, 1e150, 1e300])
def test_classes_of_extreme_scales(scale):
    X = correlated(60, 0) * scale
    X[:, 1] = 7 * scale
    rows, codes = by_class(X, np.arange(60) % 3)
    frame = find_frame(None, rows, "auto", per_feature=True, codes=codes)
    noise = frame.decode(frame.draw_noise(30, np.random.RandomState(0), codes[:30]), 0.0, float)
    assert np.isfinite(noise).all()
    np.testing.assert_allclose(noise[:, 1], 7 * scale, rtol=1e-14)
    assert 0.3 < (noise[:, 0] / scale).std() / (X[:, 0] / scale).std() < 3


def clustered(X, **options):
    rows, _ = by_class(X, None)
    return find_frame(None, rows, "auto", per_feature=False, **options)


def blobs(n_rows, centres, seed=0):
    """So many rows around each centre, in turn."""
    rng = np.random.default_rng(seed)
    return np.tile(centres, (n_rows, 1)) + rng.normal(size=(n_rows * len(centres), len(centres[0])))


CENTRES = np.array([[0.0, 0.0, 0.0], [50.0, 0.0, 10.0], [0.0, 90.0, 0.0]])


def test_noise_starts_at_the_clusters_of_the_data():
    """Three of 48 rows that lie apart: as their classes, but for the rounding and all rows' variances."""
    X, codes = blobs(16, CENTRES), np.tile([0, 1, 2], 16)
    frame = clustered(X)
    (mixture,) = frame.noises
    assert mixture.weights.tolist() == [16, 16, 16]
    by_label = find_frame(None, *by_class(X, codes)[:1], "linear", per_feature=False, codes=codes)
    place = {tuple(np.rint(noise.mean * 3)): noise for noise in mixture.noises}
    stretches = []
    for noise in by_label.noises:
        found = place[tuple(np.rint(noise.mean * 3))]
        np.testing.assert_allclose(found.mean, noise.mean, atol=1e-9)
        np.testing.assert_allclose(found.root, noise.root, atol=1e-6)
        stretches.append(found.std / noise.std)
    # One for all clusters of what gives all rows their variances, and little: those of classes are a mean of
    # logarithms.
    np.testing.assert_allclose(stretches, [stretches[0]] * 3, rtol=1e-9)
    np.testing.assert_allclose(stretches[0], 1, atol=0.1)


@pytest.mark.parametrize("n_rows", [40, 1500])
def test_noise_of_clusters_has_mean_and_variances_of_the_data(n_rows, monkeypatch):
    """Of all rows, also where clusters are those of a part."""
    monkeypatch.setattr(clusters_module, "FACTOR_SIZE", 1000 * 3)
    X = blobs(n_rows, CENTRES)
    X[:, 1] *= np.linspace(0, 1, len(X))
    frame = clustered(X)
    (mixture,) = frame.noises
    assert len(mixture.noises) == min(64, min(1000, len(X)) // 16)
    share = mixture.weights / mixture.weights.sum()
    means = np.array([noise.mean for noise in mixture.noises])
    variances = np.array([noise.std**2 for noise in mixture.noises])
    np.testing.assert_allclose(share @ means, 0, atol=1e-9)
    found = frame.scale**2 * (share @ (variances + means**2))
    # The clusters of a part can lie farther apart than all rows do.
    np.testing.assert_allclose(found, X.var(axis=0), rtol=1e-9 if n_rows == 40 else 0.005)
    noise = frame.decode(frame.draw_noise(50_000, np.random.RandomState(0)), 0.0, float)
    np.testing.assert_allclose(noise.mean(axis=0) / X.std(axis=0), X.mean(axis=0) / X.std(axis=0), atol=0.03)
    np.testing.assert_allclose(noise.std(axis=0), X.std(axis=0), rtol=0.03)
    # The learning starts at the same distribution.
    drawn = frame.decode(frame.noise_of(None).sampler.draw(4096, np.random.default_rng(0)), 0.0, float)
    assert abs(energy_distance(drawn, noise[:4096])) < 0.02 * energy_distance(X + X.std(axis=0), X)


def test_few_rows_start_at_one_normal_distribution():
    X = blobs(10, CENTRES)
    assert len(X) == 30 and not has_clusters(clustered(X))
    assert has_clusters(clustered(np.concatenate([X, X])))
    rows, _ = by_class(np.concatenate([X, X]), None)
    for kind in ("none", "shift", "scale"):
        assert not has_clusters(find_frame(None, rows, kind, per_feature=False))


@pytest.mark.parametrize("scale", [1e-300, 1e150, 1e300])
def test_clusters_of_extreme_scales(scale):
    X = blobs(20, CENTRES / 100) * scale
    X[:, 2] = 7 * scale
    frame = clustered(X)
    noise = frame.decode(frame.draw_noise(300, np.random.RandomState(0)), 0.0, float)
    np.testing.assert_allclose(noise[:, 2], 7 * scale, rtol=1e-14)
    np.testing.assert_allclose(*((each[:, :2] / scale).std(axis=0) for each in (noise, X)), rtol=0.2)


@pytest.mark.parametrize("X", [np.full((200, 3), 5.0), np.repeat(CENTRES, 50, axis=0)])
def test_clusters_of_rows_that_repeat(X):
    """There are fewer than asked for, and no warning; points without a neighbour stay points."""
    frame = clustered(X)
    noise = frame.decode(frame.draw_noise(300, np.random.RandomState(0)), 0.0, float)
    assert np.abs(noise[:, None] - X).max(axis=2).min(axis=1).max() < 1e-6


def test_held_out_rows_choose_the_number_of_clusters():
    rng = np.random.default_rng(0)
    for n_features in (1, 3):
        X = rng.normal(size=(400, n_features))
        assert not has_clusters(find_frame(None, rows_of(X), "linear", per_feature=True))
        X += 10 * rng.integers(0, 4, size=(400, 1))
        (mixture,) = find_frame(None, rows_of(X), "linear", per_feature=True).noises
        assert len(mixture.noises) == 4
        np.testing.assert_allclose(mixture.weights, 100, atol=30)


def test_curves_and_many_features_are_no_clusters():
    """More and more clusters fit a curve better; rows in one unit have as many as they allow."""
    rng = np.random.default_rng(0)
    angles = 5 * rng.random(1000)
    curve = np.column_stack([np.cos(angles), np.sin(angles)]) + 0.02 * rng.normal(size=(1000, 2))
    assert not has_clusters(find_frame(None, rows_of(curve), "linear", per_feature=True))
    (mixture,) = find_frame(None, rows_of(curve), "linear", per_feature=False).noises
    assert len(mixture.noises) == 1000 // 16
    assert not has_clusters(find_frame(None, rows_of(wide(100)), "linear", per_feature=True))


def test_the_likelihood_of_clusters_is_that_of_their_mixture():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 2))
    correlation = np.array([[1.0, 0.6], [0.6, 1.0]])
    means, stds = np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([[1.0, 2.0], [0.5, 1.0]])
    moments = [moments_module.Moments(mean, std, correlation) for mean, std in zip(means, stds, strict=True)]
    found = moments_module.ClassMoments(means, moments, np.array([10, 30]))
    expected = sum(
        share * multivariate_normal(mean, np.outer(std, std) * correlation).pdf(points)
        for share, mean, std in zip((0.25, 0.75), means, stds, strict=True)
    )
    densities = np.exp(clusters_module._log_densities(points, found)) / (2 * np.pi)
    np.testing.assert_allclose(densities.sum(axis=0), expected, rtol=1e-4)


def test_moments_of_one_cluster_are_those_of_all_rows():
    """A part of them, which counts as five rows and a half, is shrunk after Ledoit and Wolf."""
    X = np.random.default_rng(0).normal(size=(60, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    whole = moments_module.moments_of(rows_of(X), with_correlation=True)
    fourth = np.square(np.square(Z).sum(axis=1)).sum()
    plain = np.corrcoef(X.T)
    np.testing.assert_allclose(moments_module._shrunk(plain, fourth, 60), whole.correlation, atol=1e-12)
    found = moments_module.mixture_moments_of(X, np.ones((1, 60)))
    np.testing.assert_allclose(found.means[0], whole.mean, rtol=1e-12)
    np.testing.assert_allclose(found.moments[0].std, X.std(axis=0, ddof=1), rtol=1e-12)
    expected = (59 * plain + 5.5 * whole.correlation) / 64.5
    np.testing.assert_allclose(found.moments[0].correlation, expected, atol=1e-3)


def test_rows_that_belong_to_clusters_in_part():
    """A row of which each cluster has a half counts like two rows of half the weight; small clusters go."""
    X = np.random.default_rng(0).normal(size=(40, 2))
    shares = np.random.default_rng(1).dirichlet([1, 1, 1], size=40).T
    shares = np.concatenate([shares[:2], 0.99 * shares[2:], 0.01 * shares[2:]])
    found = moments_module.mixture_moments_of(X, shares)
    assert shares[3].sum() < 1 and len(found.moments) == 3
    np.testing.assert_allclose(found.weights, shares[:3].sum(axis=1))
    np.testing.assert_allclose(found.means, [np.average(X, axis=0, weights=each) for each in shares[:3]])
    # Of many rows each has its own covariance.
    X = np.random.default_rng(0).normal(size=(100_000, 2))
    shares = np.array([norm.cdf(3 * X[:, 0]), norm.cdf(-3 * X[:, 0])])
    for moments, share in zip(moments_module.mixture_moments_of(X, shares).moments, shares, strict=True):
        np.testing.assert_allclose(moments.std**2, np.cov(X.T, aweights=share).diagonal(), rtol=1e-3)


def test_folds_start_at_as_many_clusters_as_all_rows():
    """Where a fold alone would have another number, or is too small for so many."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(place, 0.1, (40, 2)) for place in (0, 5, 10, 15)])
    frame = find_frame(None, rows_of(X), "linear", per_feature=True)
    assert frame.n_clusters == 4
    for part, expected in ((X[40:], 4), (X[:100:2], 3), (X[:20], 1)):
        assert frame_like(frame, None, rows_of(part)).n_clusters == expected
    plain = find_frame(None, rows_of(rng.normal(size=(160, 2))), "linear", per_feature=True)
    assert plain.n_clusters == frame_like(plain, None, rows_of(X)).n_clusters == 1


def test_a_small_cluster_within_a_large_one_is_found():
    """The nearest centre would give it a quarter of the large one, and a deviation of half a unit."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(800, 2)), [1.5, 0] + 0.1 * rng.normal(size=(400, 2))])
    frame = find_frame(None, rows_of(X), "linear", per_feature=True)
    (mixture,) = frame.noises
    small = min(mixture.noises, key=lambda noise: noise.std.max())
    np.testing.assert_allclose(small.std * frame.scale, 0.1, rtol=0.15)
    np.testing.assert_allclose(frame.centre(0) + small.mean * frame.scale, [1.5, 0], atol=0.03)
    is_small = [noise is small for noise in mixture.noises]
    np.testing.assert_allclose(mixture.weights[is_small], 400, rtol=0.1)


def test_columns_of_a_mixture_become_normal():
    """By its own distribution function, and other columns stay."""
    means, stds = (
        np.array([[-3.0, 1.0], [0.0, 2.0], [5.0, 3.0]]),
        np.array([[1.0, 1.0], [0.01, 1.0], [2.0, 1.0]]),
    )
    noises = [Noise(mean, std) for mean, std in zip(means, stds, strict=True)]
    weights = np.array([1.0, 2.0, 1.0])
    to_normal = normal_columns_of(noises, weights, np.array([0]), np.array([2.0]))
    Z = NoiseMixture(noises, weights).draw(2000, np.random.RandomState(0))
    moved = to_normal(Z)
    below = norm.cdf((Z[:, :1] - means[:, 0]) / stds[:, 0]) @ weights / 4
    # As far apart as scores are read.
    np.testing.assert_allclose(moved[:, 0], 2 * norm.ppf(below), atol=2 / 32)
    np.testing.assert_array_equal(moved[:, 1], Z[:, 1])
    mixture = NoiseMixture(noises, weights, to_normal)
    drawn = mixture.draw(2000, np.random.RandomState(0)), mixture.sampler.draw(2000, np.random.default_rng(0))
    for each in drawn:
        assert kstest(each[:, 0] / 2, "norm").pvalue > 0.01


def test_clusters_of_a_table_keep_its_marginals():
    """Two clusters that differ in a column of heavy tails, one that repeats values, and a plain one."""
    rng = np.random.default_rng(0)
    side = rng.choice([-1, 1], 450)
    X = np.column_stack(
        [
            np.exp(2 * rng.normal(size=450) + 3 * side),
            rng.poisson(np.where(side > 0, 9, 1)),
            rng.normal(size=450) + 5 * side,
        ]
    )
    frame = find_frame(None, rows_of(X), "auto", per_feature=True)
    assert frame.charts.columns.tolist() == [0, 1]
    assert has_clusters(frame)
    drawn = frame.decode(frame.draw_noise(3000, np.random.RandomState(0)), 1.0, float)
    for k in range(3):
        assert ks_2samp(drawn[:, k], X[:, k]).statistic < 0.05
    found, expected = (np.corrcoef(np.log(each[:, 0]), each[:, 2] > 0)[0, 1] for each in (drawn, X))
    assert found == pytest.approx(expected, abs=0.03)
    counts = [[each[each[:, 2] * sign > 0, 1].mean() for sign in (-1, 1)] for each in (drawn, X)]
    np.testing.assert_allclose(*counts, atol=0.7)


def test_two_samples_of_many_features_start_at_a_shift():
    X = wide(50)
    assert find_frame(X, 2 * X, "auto", per_feature=False).kind == "shift"
    frame = find_frame(X, 2 * X, "linear", per_feature=False)
    assert frame.axes is None and not frame.noises


def test_images_of_many_pixels_start_with_the_correlations_of_neighbours():
    """White noise smoothed over five pixels: neighbours are correlated, far ones are not."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 36, 36))
    for axis in (1, 2):
        X = sum(np.roll(X, k, axis) for k in range(5))
    X = np.clip(128 + 8 * X, 0, 255).astype(np.uint8)
    options = {"network": small_unet, "max_iter": 1, "learning_rate": 1e-9, "n_steps": 1, "solver": "euler"}
    drawn = FlowMatchingTransport(**options, random_state=0).fit(X).sample(500, random_state=0)
    assert drawn.dtype == np.uint8

    def correlation(X, shift):
        return np.corrcoef(X[:, :-shift].ravel(), X[:, shift:].ravel())[0, 1]

    for shift in (1, 2, 10):
        assert correlation(drawn, shift) == pytest.approx(correlation(X, shift), abs=0.1)


def small_unet(image_shape):
    return UNet(image_shape, n_channels=8, channel_multipliers=(1,), n_blocks=1, attention_levels=())


def test_the_choice_of_a_frame():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(400, 2))
    turned = source @ [[1.0, 0.9], [0.0, 0.3]] + 4
    assert find_frame(source, rng.permutation(turned), "auto", per_feature=True).kind == "linear"
    few = [each[:8] for each in (source, turned)]
    assert find_frame(*few, "auto", per_feature=True).kind == "shift"
    # A tail so heavy that deviations say nothing about the rest.
    tailed = rng.normal(size=(100, 2)) + 1
    tailed[:3] *= 1000
    assert find_frame(source, tailed, "auto", per_feature=False).kind in ("shift", "none")
    assert find_frame(source, tailed, "auto", per_feature=True).charts.columns.tolist() == [0, 1]


def test_a_single_column_starts_at_its_optimal_map_where_that_is_not_linear():
    """Quantiles of 200 rows are worse than the linear map between two Gaussians, and better elsewhere."""
    rng = np.random.default_rng(0)
    source, gaussian = rng.normal(size=(200, 1)), rng.normal(2, 3, size=(200, 1))
    clusters = rng.choice([-2.0, 2.0], size=(200, 1)) + 0.1 * rng.normal(size=(200, 1))
    assert find_frame(source, gaussian, "auto", per_feature=True).kind == "linear"
    assert find_frame(source, clusters, "auto", per_feature=True).kind == "quantile"
    assert find_frame(source, clusters, "auto", per_feature=False).kind == "linear"
    assert find_frame(None, rows_of(clusters), "auto", per_feature=True).kind == "linear"
