"""What a user sees of FlowMatchingTransport beyond the common surface."""

import numpy as np
import pytest
from clouds import two_clouds

from sklearn_nsgf import FlowMatchingTransport
from sklearn_nsgf.metrics import energy_distance

FAST = {"n_couplings": 32, "coupling_batch_size": 128, "max_iter": 400, "random_state": 0}


@pytest.mark.parametrize("coupling", ["independent", "exact", "sinkhorn"])
def test_new_points_land_on_new_points_of_the_target(coupling):
    est = FlowMatchingTransport(**FAST, coupling=coupling).fit(*two_clouds())
    source, target = two_clouds(seed=1)
    assert -est.score(source, target) < 0.03 * energy_distance(source, target)


def test_exact_couplings_make_straight_paths():
    """The share of a path's length that is not its end-to-end distance."""
    source, _ = two_clouds(seed=1)

    def detour(coupling):
        est = FlowMatchingTransport(**FAST, coupling=coupling).fit(*two_clouds())
        path = est.integrate(source, n_steps=50, return_path=True) - np.linspace(0, 8, 51)[:, None, None] * [
            1,
            0,
        ]
        length = np.linalg.norm(np.diff(path, axis=0), axis=-1).sum(0)
        return (length / np.linalg.norm(path[-1] - path[0], axis=-1)).mean() - 1

    assert detour("exact") < 0.5 * detour("independent")


def test_a_translation_is_learnt_exactly():
    """Exact pairs of a cloud and its translate have one velocity, and the centre carries it."""
    source, _ = two_clouds()
    shift = np.array([5, -3])
    error = FlowMatchingTransport(**FAST).fit(source, source + shift).transform(source) - source - shift
    assert np.abs(error).max() < 0.5
    assert np.abs(error).mean() < 0.15


def test_clouds_of_unequal_size():
    source, target = two_clouds(n_source=20)
    est = FlowMatchingTransport(**FAST, early_stopping=False).fit(source, target)
    assert energy_distance(est.transform(source), target) < 0.05 * energy_distance(source, target)


def test_function_evaluations():
    est = FlowMatchingTransport(**{**FAST, "max_iter": 2}, n_steps=7, solver="rk4")
    assert not hasattr(est, "n_function_evaluations_")
    assert est.fit(*two_clouds()).n_function_evaluations_ == 28
