"""What held-out rows say about a leg."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from torch import nn

from sklearn_nsgf._data.layout import Layout
from sklearn_nsgf._data.rows import Sample, SampleRows
from sklearn_nsgf._learning.held_out import Distance, HeldOutDistance, mean_distance
from sklearn_nsgf._learning.strata import Side, Stratum, split_places
from sklearn_nsgf.flow import ArraySampler, GaussianSampler


class Shift(nn.Module):
    def forward(self, t, x):
        return torch.ones_like(x)


def criterion_of(x, y, n_steps=(3,)):
    sides = [Side(ArraySampler(rows), float(len(rows))) for rows in (x, y)]
    return HeldOutDistance(
        [Stratum(*sides)], n_steps, "euler", are_seen=False, device=torch.device("cpu"), seed=0
    )


def energy_distance(x, y, exponent):
    """Of different points."""
    return 2 * (cdist(x, y) ** exponent).mean() - sum((pdist(each) ** exponent).mean() for each in (x, y))


def test_the_distance_is_an_energy_distance():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, 2)).astype(np.float32) for n in (60, 50))
    criterion = criterion_of(x, y)
    assert criterion(None).value == pytest.approx(energy_distance(x, y, 0.5), rel=1e-5)
    assert criterion(Shift()).value == pytest.approx(energy_distance(x + 1, y, 0.5), rel=1e-5)


def test_details_of_the_distance():
    """It, the sum of it and the mean of those with exponent 1 in single features, and that to the nearest."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, 3)).astype(np.float32) for n in (60, 50))
    for shift, network in ((0, None), (1, Shift())):
        single = [energy_distance(x[:, [k]] + shift, y[:, [k]], 1) for k in range(3)]
        together = energy_distance(x + shift, y, 0.5)
        nearest = np.log(cdist(y, x + shift).min(axis=1))
        details = criterion_of(x, y).with_details(network)
        expected = [together, together + np.mean(single), nearest.mean()]
        assert [distance.value for distance in details] == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(np.sort(details[2].target_parts), np.sort(nearest), rtol=1e-4, atol=1e-4)
        assert not details[2].source_parts.any()


class Faster(nn.Module):
    def forward(self, t, x):
        return t[:, None].expand_as(x)


def test_each_half_has_its_own_steps():
    """By Euler's rule one step of length 1/2 at t = 0, and two of 1/4 at t = 1/2 and 3/4."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, 2)).astype(np.float32) for n in (60, 50))
    way = 0.5 * 0 + 0.25 * (0.5 + 0.75)
    distance = criterion_of(x, y, (1, 2))(Faster())
    assert distance.value == pytest.approx(energy_distance(x + way, y, 0.5), rel=1e-5)


def test_the_standard_error_is_that_of_fresh_samples():
    """Of the gain of a shift, over a thousand pairs of samples; the parts of one pair tell it."""
    rng = np.random.default_rng(0)
    gains, errors = [], []
    for _ in range(1000):
        x, y = (rng.normal(size=(n, 1)).astype(np.float32) for n in (40, 60))
        criterion = criterion_of(x, y + 1)
        before, after = criterion(None), criterion(Shift())
        gains.append(before.value - after.value)
        parts = [mine - theirs for mine, theirs in zip(after[1:], before[1:], strict=True)]
        errors.append(np.sqrt(sum(part.var() / (len(part) - 1) for part in parts)))
    assert np.mean(errors) == pytest.approx(np.std(gains), rel=0.1)


def test_noise_is_drawn_beyond_the_rows_of_the_target():
    """It costs nothing, and few points of it would tell little of a few rows."""
    rows = ArraySampler(np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32))
    noise = Side(GaussianSampler(np.ones(2)), np.inf)
    strata = [Stratum(noise, Side(rows, 20.0))]
    criterion = HeldOutDistance(strata, (3,), "euler", are_seen=False, device=torch.device("cpu"), seed=0)
    distance = criterion(None)
    assert (len(distance.source_parts), len(distance.target_parts)) == (1024, 20)


def test_a_gain_has_to_exceed_the_errors():
    parts = np.arange(101.0)
    first = Distance(1.0, parts, parts)
    noisy = Distance(0.5, parts + 2 * (-1) ** np.arange(101), parts)
    assert noisy.is_better_than(first, 2.0)
    assert not noisy.is_better_than(first, 3.0)
    assert noisy.gain_on(first) == pytest.approx(0.5 / np.sqrt(4 / 100), rel=0.01)
    assert first.gain_on(noisy) == -noisy.gain_on(first)
    assert first.gain_on(first) == 0
    assert first._replace(value=0.9).gain_on(first) == np.inf
    assert first._replace(value=np.nan).gain_on(first) == -np.inf


def test_held_out_rows_are_like_the_others():
    """Of two far clusters each loses its share exactly, and every row is held out equally often."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(-10, 1, size=(160, 2)), rng.normal(10, 1, size=(40, 2))])
    sample = Sample(SampleRows(X, Layout((2,))), None)
    counts = np.zeros(200)
    for seed in range(300):
        ((training, held_out),) = split_places(sample, 0.2, seed, 1)
        assert sorted([*training, *held_out]) == list(range(200))
        assert (held_out < 160).sum() == pytest.approx(32, abs=1)
        counts[held_out] += 1
    assert counts.sum() == 300 * 40
    assert counts.min() > 30 and counts.max() < 95  # sixty each, with a deviation of seven


def test_each_class_gives_its_share():
    codes = np.repeat([0, 1, 2], [50, 20, 1])
    sample = Sample(SampleRows(np.arange(71.0).reshape(-1, 1), Layout((1,))), codes)
    ((_, held_out),) = split_places(sample, 0.2, 0, 1)
    assert np.bincount(codes[held_out], minlength=3).tolist() == [10, 4, 0]


def test_every_row_is_held_out_of_one_fold():
    """And of each group of neighbours every fold has one."""
    codes = np.repeat([0, 1, 2], [50, 20, 1])
    sample = Sample(SampleRows(np.arange(71.0).reshape(-1, 1), Layout((1,))), codes)
    folds = split_places(sample, 0.2, 0, 5)
    assert all(sorted([*training, *held_out]) == list(range(71)) for training, held_out in folds)
    held_out = [places for _, places in folds]
    assert sorted(np.concatenate(held_out)) == list(range(70))
    for places in held_out:
        assert (places // 5).tolist() == list(range(14))


@pytest.mark.parametrize(("fraction", "n_folds"), [(0.5, 2), (0.9, 2), (0.01, 5), (0.2, 5)])
@pytest.mark.parametrize("n_rows", [13, 14, 71])
def test_folds_hold_out_all_rows_once(fraction, n_folds, n_rows):
    sample = Sample(SampleRows(np.arange(float(n_rows)).reshape(-1, 1), Layout((1,))), None)
    held_out = [places for _, places in split_places(sample, fraction, 0, n_folds)]
    assert sorted(np.concatenate(held_out)) == list(range(n_rows))
    assert np.ptp([len(places) for places in held_out]) <= 1


def test_folds_share_their_mean():
    distances = [Distance(1.0, np.arange(3.0), np.arange(2.0)), Distance(3.0, np.ones(4), np.zeros(3))]
    value, source_parts, target_parts = mean_distance(distances)
    assert value == 2.0
    assert source_parts.tolist() == [0, 1, 2, 1, 1, 1, 1]
    assert target_parts.tolist() == [0, 1, 0, 0, 0]
