import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sklearn_nsgf.metrics import energy_distance, sinkhorn_divergence, wasserstein_distance


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
