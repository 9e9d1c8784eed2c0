import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.distance import cdist

from sklearn_nsgf.metrics import (
    energy_distance,
    frechet_distance,
    sinkhorn_divergence,
    wasserstein_distance,
)


def test_energy_distance_leaves_out_the_pairs_with_itself():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 3)), rng.normal(1, 2, size=(40, 3))
    within_x, within_y = (cdist(Z, Z)[~np.eye(len(Z), dtype=bool)].mean() for Z in (X, Y))
    assert energy_distance(X, Y) == pytest.approx(2 * cdist(X, Y).mean() - within_x - within_y)


def test_energy_distance_is_unbiased():
    rng = np.random.default_rng(0)
    values = [energy_distance(*rng.normal(size=(2, 20, 2))) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20
    assert np.min(values) < 0


def test_energy_distance_of_many_rows_uses_the_same_ones_each_time():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(5000, 1)), rng.normal(size=(5000, 1))
    assert energy_distance(X, Y) == energy_distance(X, Y)
    assert abs(energy_distance(X, Y)) < 0.01


def test_wasserstein_distance_of_a_shift_is_its_length():
    X = np.random.default_rng(0).normal(size=(50, 2))
    assert wasserstein_distance(X, np.flip(X, 0) + np.array([3, 4])) == pytest.approx(5)
    assert wasserstein_distance(X[:1], X[:1]) == 0


def test_sinkhorn_divergence_of_a_shift_is_half_its_square():
    X = np.random.default_rng(0).normal(size=(50, 2))
    assert sinkhorn_divergence(X, np.flip(X, 0) + np.array([3, 4]), blur=0.5) == pytest.approx(12.5, rel=1e-3)


@pytest.mark.parametrize(
    "metric",
    [energy_distance, wasserstein_distance, lambda X, Y: sinkhorn_divergence(X, Y, blur=1.0)],
)
def test_bad_input(metric):
    X = np.zeros((5, 2))
    with pytest.raises(ValueError, match="Y has 3"):
        metric(X, np.zeros((5, 3)))
    with pytest.raises(ValueError, match="NaN"):
        metric(X, np.full((5, 2), np.nan))


def test_energy_distance_needs_two_rows():
    with pytest.raises(ValueError, match="minimum of 2"):
        energy_distance(np.zeros((1, 2)), np.zeros((5, 2)))


@pytest.mark.parametrize("metric", [energy_distance, wasserstein_distance])
def test_a_common_shift_costs_no_precision(metric):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 2)), 3 + rng.normal(size=(50, 2))
    assert metric(X + 1.7e9, Y + 1.7e9) == pytest.approx(metric(X, Y), rel=1e-5)


def test_frechet_distance_of_exact_gaussians():
    """Samples whose mean and covariance are exact: the distance has a closed form where they commute."""
    rng = np.random.default_rng(0)
    white = rng.normal(size=(500, 3))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    X, Y = white * [1.0, 2.0, 3.0] @ rotation, white * [2.0, 2.0, 0.5] @ rotation + [1.0, -2.0, 0.0]
    assert frechet_distance(X, Y) == pytest.approx(5 + 1 + 0 + 2.5**2)
    assert frechet_distance(Y, X) == pytest.approx(frechet_distance(X, Y))
    assert frechet_distance(X, X + 1e6) == pytest.approx(3e12)
    assert 0 <= frechet_distance(X, X) < 1e-10


def test_frechet_distance_of_gaussians_that_do_not_commute():
    rng = np.random.default_rng(0)
    X, Y = (
        rng.normal(size=(400, 2)) @ [[2.0, 1.0], [0.0, 1.0]],
        rng.normal(size=(300, 2)) @ [[1.0, 0.0], [3.0, 1.0]],
    )
    a, b = np.cov(X.T), np.cov(Y.T)
    cross = scipy.linalg.sqrtm(a @ b).real
    expected = np.square(X.mean(0) - Y.mean(0)).sum() + np.trace(a + b - 2 * cross)
    assert frechet_distance(X, Y) == pytest.approx(expected)


def test_frechet_distance_of_degenerate_samples():
    """Constant features, and fewer rows than features."""
    X = np.column_stack([np.arange(5.0), np.full(5, 7.0)])
    assert frechet_distance(X, X + np.array([0, 2])) == pytest.approx(4)
    few = np.random.default_rng(0).normal(size=(20, 500))
    assert frechet_distance(few, few + 1) == pytest.approx(500)
    assert frechet_distance(few, few + 1e-4) == pytest.approx(5e-6, rel=1e-3)
    other = np.random.default_rng(1).normal(size=(30, 500))
    assert frechet_distance(few, other) == pytest.approx(frechet_distance(other, few), rel=1e-12)
    with pytest.raises(ValueError, match="minimum of 2"):
        frechet_distance(X[:1], X)
    with pytest.raises(ValueError, match="X has 2 features and Y has 3"):
        frechet_distance(X, np.ones((5, 3)))
