"""Batches of two phases."""

import numpy as np
import pytest
import torch

from sklearn_nsgf._learning.paths import SinkhornPaths
from sklearn_nsgf._learning.strata import Side, Stratum
from sklearn_nsgf._learning.two_phases import TwoPhases
from sklearn_nsgf.flow import ArraySampler, Couplings, TrajectoryPool


def line(start, end, labels=None):
    sides = (ArraySampler(np.full((1, 1), float(x))) for x in (start, end))
    maker = Couplings(*sides, coupling="exact", n_points=1)
    return TrajectoryPool(maker, n_blocks=1, seed=0, labels=labels)


def test_paths_that_end_early_are_as_fast():
    """From 0 to 3 by the time .75: as from 0 to 4 by the time 1."""
    pool = line(0, 3)
    pool.end = 0.75
    t, x, v, _ = pool.sample(1000, torch.Generator().manual_seed(0), t_end=0.5)
    assert 0.45 < t.max() < 0.5
    torch.testing.assert_close(x[:, 0], 4 * t)
    torch.testing.assert_close(v[:, 0], torch.full_like(t, 4.0))


@pytest.mark.parametrize("batch_size", [1, 7, 8])
def test_half_of_all_points_lie_in_either_half(batch_size):
    """From 0 to 4, of which a half is gone at t = 1/2, and from 1 to 5 in the rest of the time."""
    phases, generator = TwoPhases(line(0, 4), line(1, 5)), torch.Generator().manual_seed(0)
    batches = [phases.sample(batch_size, generator) for _ in range(100)]
    t, x, v = (torch.cat([batch[k] for batch in batches]).flatten() for k in range(3))
    late = t >= 0.5
    assert len(t) == 100 * batch_size
    assert late.sum() == 50 * batch_size
    torch.testing.assert_close(x, torch.where(late, 1 + 8 * (t - 0.5), 4 * t))
    torch.testing.assert_close(v, torch.where(late, 8.0, 4.0))


def test_labels_come_along():
    pools = [line(0, 1, torch.tensor([label])) for label in (3, 4)]
    assert TwoPhases(*pools).sample(2, torch.Generator().manual_seed(0)).labels.tolist() == [3, 4]


@pytest.mark.parametrize("n_steps", [1, 2, 5])
@pytest.mark.parametrize("blur", [0.2, (0.8, 0.1)])
def test_steps_that_nobody_draws_from_are_not_simulated(n_steps, blur):
    """What is simulated is the beginning of the whole flow."""
    rng = np.random.default_rng(0)
    sides = (Side(ArraySampler(rng.normal(size=(40, 2))), 40) for _ in range(2))
    stratum = Stratum(*sides)
    paths = SinkhornPaths(1, 32, blur, n_steps, "harmonic", 1e-3, None)
    half = paths._replace(t_end=0.5)
    assert half.end == (n_steps + 1) // 2 / n_steps
    whole, part = (
        each.make_blocks(stratum, 32, torch.device("cpu"))([np.random.SeedSequence(0)])
        for each in (paths, half)
    )
    # The smallest blur of all steps decides how the costs are scaled.
    torch.testing.assert_close(part, whole[:, :, : (n_steps + 1) // 2 + 1], rtol=0, atol=1e-4)
