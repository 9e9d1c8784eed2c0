"""What held-out rows say about a leg: a distance between where they arrive and the target."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_nsgf._learning.strata import Side, Stratum, shares
from sklearn_nsgf.flow import odeint
from sklearn_nsgf.flow._ode import VelocityField

# Rows of each side that are compared, in all.
MAX_ROWS = 1024
# Rows that are nearer to each other count as so near.
SMALLEST_DISTANCE = 1e-6


class Distance(NamedTuple):
    """A distance between two samples, and the part of each row in it.

    Most are squared energy distances with exponent 1/2: the roots of the distances between points count near
    points more, which is where a network differs from a map that has means and covariances right already.
    Between points of many features they hardly see what is wrong in one of them, such as two clusters: the
    mean of the distances in single features, with exponent 1, does. Nor do they see what lies closer together
    than held-out rows do, such as a curve: the logarithm of the distance to the nearest point does.

    Attributes
    ----------
    value : float
    source_parts, target_parts : ndarray
        Their means differ between two distances by as much as the distances do, to first order: what the
        delete-one variance of a U-statistic is made of.
    """

    value: float
    source_parts: np.ndarray
    target_parts: np.ndarray

    @property
    def n_rows(self) -> int:
        """Rows of the smaller sample."""
        return min(map(len, self[1:]))

    def gain_on(self, other: Distance) -> float:
        """By how many standard errors of the paired difference it is smaller."""
        gain = other.value - self.value
        if not math.isfinite(gain):
            return -math.inf
        parts = [mine - others for mine, others in zip(self[1:], other[1:], strict=True)]
        error = math.sqrt(sum(part.var() / max(1, len(part) - 1) for part in parts))
        return gain / error if error > 0 else math.copysign(math.inf, gain) if gain else 0.0

    def is_better_than(self, other: Distance, n_errors: float) -> bool:
        """Whether it is smaller by more than so many standard errors of the paired difference."""
        return self.gain_on(other) > n_errors


def mean_distance(distances: Sequence[Distance]) -> Distance:
    """That of several folds, which share no row."""
    values, *parts = zip(*distances, strict=True)
    return Distance(float(np.mean(values)), *map(np.concatenate, parts))


class HeldOutDistance:
    """Distance between held-out rows that a network has moved and held-out rows of the target.

    Parameters
    ----------
    strata : list of Stratum
        Their rows are drawn once.
    n_steps : tuple of int
        Of each of equal parts of the time.
    solver : str
        How the flow is followed.
    are_seen : bool
        Whether the network sees the classes.
    device : torch device
    seed : int, or several
    """

    def __init__(
        self,
        strata: list[Stratum],
        n_steps: tuple[int, ...],
        solver: str,
        *,
        are_seen: bool,
        device: torch.device,
        seed: int | Sequence[int],
    ) -> None:
        rng = np.random.default_rng(seed)
        self.n_steps, self.solver, self.shares = n_steps, solver, shares(strata)
        self.clouds: list[tuple[Tensor, Tensor, list[Tensor]]] = []
        for stratum, share in zip(strata, self.shares, strict=True):
            x, y = (
                torch.from_numpy(side.sampler.draw(_n_rows(side, share), rng)).to(device)
                for side in (stratum.source, stratum.target)
            )
            labels = [torch.full((len(x),), stratum.code, device=device)] if are_seen else []
            self.clouds.append((x, y, labels))

    def __call__(self, network: nn.Module | None) -> Distance:
        """The distance with a network, or with None where nothing moves."""
        return self._over_classes([_in_all_features(x, y) for x, y in self._arrived(network)])

    def with_details(self, network: nn.Module | None) -> list[Distance]:
        """The same, the sum of it and the mean of the distances in single features, and that to the nearest.

        The last one is the mean logarithm of the distance from a row of the target to the nearest arrival.
        """
        clouds = self._arrived(network)
        together, single, nearest = (
            [measure(x, y) for x, y in clouds]
            for measure in (_in_all_features, _in_single_features, _to_nearest)
        )
        sums = [Distance(*map(operator.add, *pair)) for pair in zip(together, single, strict=True)]
        return [self._over_classes(each) for each in (together, sums, nearest)]

    @torch.no_grad()
    def _arrived(self, network: nn.Module | None) -> list[tuple[Tensor, Tensor]]:
        """Where the rows of each class arrive, and those of the target: in float64, not on every device."""
        was_training = network is not None and network.training
        clouds = []
        for x, y, labels in self.clouds:
            if network is not None:
                x = self._follow(partial(_velocity, network.eval(), labels), x)
            clouds.append((x.cpu().double(), y.cpu().double()))
        if network is not None:
            network.train(was_training)
        return clouds

    def _over_classes(self, distances: list[Distance]) -> Distance:
        value = sum(share * each.value for share, each in zip(self.shares, distances, strict=True))
        _, *parts = zip(*distances, strict=True)
        return Distance(float(value), *map(np.concatenate, parts))

    def _follow(self, field: VelocityField, x: Tensor) -> Tensor:
        n_phases = len(self.n_steps)
        for k, n_steps in enumerate(self.n_steps):
            start, end = k / n_phases, (k + 1) / n_phases
            x = odeint(field, x, n_steps=n_steps, solver=self.solver, t_start=start, t_end=end)
        return x


def _velocity(network: nn.Module, labels: list[Tensor], t: Tensor, z: Tensor) -> Tensor:
    return network(t, z, *labels)


def _n_rows(side: Side, share: float) -> int:
    """Rows of a class that are compared; of noise as many as there can be."""
    return int(max(1, min(side.sampler.n_rows, side.n_rows, MAX_ROWS * share)))


def _in_all_features(x: Tensor, y: Tensor) -> Distance:
    between, within_x, within_y = (torch.cdist(*pair).sqrt() for pair in ((x, y), (x, x), (y, y)))
    sums = between.sum(1), between.sum(0), within_x.sum(1), within_y.sum(1)
    return _energy_distance(*(each[None] for each in sums))


def _in_single_features(x: Tensor, y: Tensor) -> Distance:
    return _energy_distance(*(_sums_of_distances(*pair) for pair in ((x, y), (y, x), (x, x), (y, y))))


def _to_nearest(x: Tensor, y: Tensor) -> Distance:
    logarithms = torch.cdist(y, x).amin(1).clamp_min(SMALLEST_DISTANCE).log()
    return Distance(logarithms.mean().item(), np.zeros(len(x)), logarithms.numpy())


def _energy_distance(x_to_y: Tensor, y_to_x: Tensor, x_to_x: Tensor, y_to_y: Tensor) -> Distance:
    """``2 E|x - y| - E|x - x'| - E|y - y'|`` without the pairs of a point with itself, mean over features.

    The arguments are sums over all points of one sample, of shape (n_features, n) or (n_features, m).
    """
    n, m = x_to_y.shape[1], y_to_x.shape[1]
    x_to_y, y_to_x = x_to_y.mean(0) / m, y_to_x.mean(0) / n
    x_to_x, y_to_y = x_to_x.mean(0) / max(1, n - 1), y_to_y.mean(0) / max(1, m - 1)
    value = 2 * x_to_y.mean() - x_to_x.mean() - y_to_y.mean()
    return Distance(value.item(), (2 * (x_to_y - x_to_x)).numpy(), (2 * (y_to_x - y_to_y)).numpy())


def _sums_of_distances(a: Tensor, b: Tensor) -> Tensor:
    """``sum_j |a_i - b_j|`` in each feature, by sorting."""
    a, b = a.T.contiguous(), b.T.contiguous().sort(dim=1).values
    sums = nn.functional.pad(b.cumsum(1), (1, 0))
    n_below = torch.searchsorted(b, a)
    return a * (2 * n_below - b.shape[1]) + sums[:, -1:] - 2 * sums.gather(1, n_below)
