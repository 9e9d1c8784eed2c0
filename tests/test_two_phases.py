"""Batches of two phases."""

import numpy as np
import pytest
import torch

from sklearn_nsgf._learning.two_phases import TwoPhases
from sklearn_nsgf.flow import ArraySampler, Couplings, TrajectoryPool


def line(start, end, labels=None):
    sides = (ArraySampler(np.full((1, 1), float(x))) for x in (start, end))
    maker = Couplings(*sides, coupling="exact", n_points=1)
    return TrajectoryPool(maker, n_blocks=1, seed=0, labels=labels)


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
