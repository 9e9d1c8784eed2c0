"""What comes in: frames, and rows that are read as seldom as need be."""

import numpy as np
import pytest

from sklearn_nsgf._data import moments as moments_module
from sklearn_nsgf._data.choice import find_frame
from sklearn_nsgf._data.layout import Layout
from sklearn_nsgf._data.rows import SampleRows


class Counted(SampleRows):
    """Counts the rows that are read."""

    n_read = 0

    def __getitem__(self, places):
        rows = super().__getitem__(places)
        self.n_read += len(rows)
        return rows


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
        frame = find_frame(None, X, "auto", per_feature=per_feature)
        assert (frame.kind, frame.charts) == ("linear", None)
        noise = frame.decode(frame.draw_noise(50_000, np.random.RandomState(0)), 0.0, float)
        np.testing.assert_allclose(np.cov(noise.T), np.cov(X.T), rtol=0.05, atol=0.02)
        np.testing.assert_allclose(noise.mean(axis=0), X.mean(axis=0), atol=0.05)
    frame = find_frame(None, X, "scale", per_feature=True)
    noise = frame.decode(frame.draw_noise(50_000, np.random.RandomState(0)), 0.0, float)
    np.testing.assert_allclose(np.cov(noise.T), np.diag(X.var(axis=0)), rtol=0.05, atol=0.05)


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
    assert find_frame(None, clusters, "auto", per_feature=True).kind == "linear"
