"""The fitted model: a flow of one leg or several, from arrays to arrays."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_nsgf._data.layout import float_dtype
from sklearn_nsgf._data.space import Space, check_finite
from sklearn_nsgf._documentation import question
from sklearn_nsgf._model.leg import Leg, NetworkOnRows
from sklearn_nsgf._model.reservoir import Reservoir
from sklearn_nsgf._torch import resolve_device
from sklearn_nsgf._version import __version__
from sklearn_nsgf._warn import warn_caller
from sklearn_nsgf.flow import odeint


class Integration(NamedTuple):
    """How a flow is followed.

    Attributes
    ----------
    n_steps : tuple of int
        Number of steps of each phase.
    solver : str
    device : str
    """

    n_steps: tuple[int, ...]
    solver: str
    device: str


class Phase(NamedTuple):
    """A part of the time of a leg."""

    leg: Leg | None
    start: float
    length: float

    def leg_time(self, t):
        """Time of the leg at a time of the phase; both run from 0 to 1."""
        return self.start + self.length * t


class FlowModel:
    """What a fit leaves. It is never changed: a fit that goes on makes another one.

    Time runs from 0 (source) to 1 (target), and each leg has an equal part of it, each of its phases an equal
    part of that. In the first leg the centre of the flow moves from the source's mean to the target's. In
    later legs it stays there.

    Parameters
    ----------
    space : Space
    source : Reservoir or None
        Rows that `sample` draws from; None for the normal distribution.
    n_seen : list of int
        Number of rows of each class that the network sees, or of all.
    legs : sequence of Leg or None
        None for a leg that was not learnt: the flow stands still there.
    device : torch device or str
        Where it was learnt.
    replay : (Reservoir or None, Reservoir) or None
        Rows of source and target that later parts of the data are learnt together with.
    """

    def __init__(
        self,
        space: Space,
        source: Reservoir | None,
        n_seen: list[int],
        legs: Sequence[Leg | None],
        device: torch.device | str,
        replay: tuple[Reservoir | None, Reservoir] | None = None,
    ) -> None:
        self.space, self.source, self.n_seen = space, source, n_seen
        self.legs, self.device, self.replay = tuple(legs), str(device), replay

    @property
    def n_iter(self) -> int:
        """Optimiser steps of the velocity networks."""
        return sum(leg.curves.n_iter for leg in self.legs if leg is not None)

    @property
    def n_kept(self) -> int:
        """Optimiser steps of the networks that were kept; 0 if none of them moves a point."""
        return sum(leg.curves.n_kept for leg in self.legs if leg is not None)

    @property
    def phases(self) -> list[Phase]:
        """Parts of the time that are followed in a number of steps each."""
        phases = []
        for leg in self.legs:
            n_phases = 1 if leg is None else leg.n_phases
            phases += [Phase(leg, k / n_phases, 1 / n_phases) for k in range(n_phases)]
        return phases

    def alone(self, k: int) -> FlowModel:
        """The flow of one leg, from the source, in time from 0 to 1."""
        return FlowModel(self.space, self.source, self.n_seen, [self.legs[k].alone()], self.device)

    def encode(self, X: np.ndarray, t) -> np.ndarray:
        """Samples at time t as points of the flow."""
        return self.space.encode(X, self.clock(t))

    def transport(
        self, X: np.ndarray, codes: np.ndarray | None, t_start: float, t_end: float, how: Integration
    ) -> np.ndarray:
        """Samples at `t_end` from those at `t_start`."""
        nodes, times = self.follow(self.encode(X, t_start), codes, t_start, t_end, how)
        return self.decode(nodes, times, self.space.answer_dtype(X.dtype, t_end))[-1]

    def path(
        self, X: np.ndarray, codes: np.ndarray | None, t_start: float, t_end: float, how: Integration
    ) -> np.ndarray:
        """The same after every step, the start included."""
        Z = self.encode(X, t_start)
        nodes, times = self.follow(Z, codes, t_start, t_end, how, return_path=True)
        return self.decode(nodes, times, float_dtype(X.dtype))

    def decode(self, Z: np.ndarray, times: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return self.space.decode(Z, self.clock(times), dtype)

    def follow(
        self,
        Z: np.ndarray,
        codes: np.ndarray | None,
        t_start: float,
        t_end: float,
        how: Integration,
        *,
        return_path: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nodes of the flow from `Z` on, or the last one alone, and their times."""
        device, phases, n_phases = resolve_device(how.device), self.phases, len(self.phases)
        network_of = functools.cache(lambda leg: leg.on(device, Z.dtype))
        # In the time of each phase, which runs from 0 to 1.
        starts, ends = (np.clip([n_phases * t - k for k in range(n_phases)], 0, 1) for t in (t_start, t_end))
        standing = min(int(n_phases * t_start), n_phases - 1) if t_start == t_end else None
        nodes, times = [Z[None]], [np.array([t_start])]
        for k in range(n_phases) if t_start <= t_end else reversed(range(n_phases)):
            leg, start, end = phases[k].leg, *map(phases[k].leg_time, (starts[k], ends[k]))
            if leg is None or (start == end and k != standing):
                continue
            if leg.time_predictor is not None:
                self._check_forward(t_start <= k / n_phases <= t_end)
                # What is left of the way is walked in this leg's part of the time.
                start = self._entry_times(leg, nodes[-1][-1], device)
                end = start + (1 - start) * end
            steps = how.n_steps[k], how.solver
            points = follow_leg(
                network_of(leg), nodes[-1][-1], codes, start, end, *steps, return_path=return_path
            )
            nodes.append(points[1:] if return_path else points)
            phase_times = np.linspace(starts[k], ends[k], len(points))[1:] if return_path else ends[k : k + 1]
            times.append((k + phase_times) / n_phases)
        if return_path:
            return np.concatenate(nodes), np.concatenate(times)
        return nodes[-1], times[-1]

    def velocity(
        self, X: np.ndarray, codes: np.ndarray | None, t: np.ndarray, how: Integration
    ) -> np.ndarray:
        """dx/dt of samples at their times, in the units of the data."""
        n_legs = len(self.legs)
        Z = self.encode(X, t)
        V, device = np.zeros_like(Z), resolve_device(how.device)
        in_leg = np.minimum(np.floor(n_legs * t), n_legs - 1)
        for k, leg in enumerate(self.legs):
            rows = in_leg == k
            if leg is None or not rows.any():
                continue
            self._check_forward(leg.time_predictor is None)
            classes = [] if codes is None else [codes[rows]]
            leg_times = n_legs * t[rows] - k
            velocity = leg.on(device, Z.dtype)(
                lambda network, Z, t, *classes: network(t, Z, *classes),
                Z[rows],
                leg_times.astype(Z.dtype),
                *classes,
            )
            V[rows] = n_legs * self.space.frame.velocity(Z[rows], velocity, leg_times)
        return self.space.layout.to_samples(check_finite(V))

    def entry_times(self, X: np.ndarray, codes: np.ndarray | None, how: Integration) -> np.ndarray:
        """Time of the second leg, from 0 to 1, at which each point of the source enters it."""
        leg, Z = self.legs[-1], self.encode(X, 0.0)
        if leg is None or leg.time_predictor is None:
            return np.zeros(len(X), dtype=Z.dtype)
        ends, _ = self.follow(Z, codes, 0.0, 0.5, how)
        return self._entry_times(leg, ends[-1], resolve_device(how.device))

    def draw_codes(self, n_samples: int, rng: np.random.RandomState) -> np.ndarray | None:
        """Classes, as often as they were in the fit; None if the network sees none."""
        if not self.space.classes.are_seen:
            return None
        return rng.choice(len(self.n_seen), size=n_samples, p=np.array(self.n_seen) / sum(self.n_seen))

    def sample(
        self, n_samples: int, codes: np.ndarray | None, how: Integration, rng: np.random.RandomState
    ) -> np.ndarray:
        """New samples of the target."""
        dtype, frame = float_dtype(self.space.dtypes[1]), self.space.frame
        if self.source is None:
            Z = frame.draw_noise(n_samples, rng, codes).astype(dtype)
        else:
            Z = frame.encode(self.source.draw(codes, n_samples, dtype, rng), 0.0)
        return self.decode(*self.follow(Z, codes, 0.0, 1.0, how), self.space.dtypes[1])[-1]

    @staticmethod
    def _entry_times(leg: Leg, Z: np.ndarray, device: torch.device) -> np.ndarray:
        return leg.predictor_on(device, Z.dtype)(lambda network, Z: network(Z), Z)

    @staticmethod
    def _check_forward(holds: bool) -> None:
        if not holds:
            raise ValueError(
                "With transition='predicted' the straight flow starts at a time that is predicted for each "
                "point where the Sinkhorn flow ends (t = 0.5): there is no way back from it, no start "
                "beyond it, and no velocity at a point there. Use transition='direct'."
            )

    def clock(self, t):
        """How far the centre has come at a time of the flow."""
        return np.minimum(len(self.legs) * np.asarray(t), 1.0)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        version = state.pop("version", "an unknown version")
        if version != __version__:
            warn_caller(
                f"An estimator was saved with sklearn-nsgf {version} and is opened with {__version__}: it "
                "may not work as it did. Fit it again, or install that version." + question("faq-version"),
                UserWarning,
            )
        vars(self).update(state)


def follow_leg(
    network: NetworkOnRows,
    Z: np.ndarray,
    codes: np.ndarray | None,
    t_start: float | np.ndarray,
    t_end: float | np.ndarray,
    n_steps: int,
    solver: str,
    *,
    return_path: bool = False,
) -> np.ndarray:
    """Points of a leg at its end, or after every step, of shape (n_nodes, n, n_features)."""

    def follow_chunk(
        network: nn.Module, Z: Tensor, t_start: Tensor, t_end: Tensor, *classes: Tensor
    ) -> Tensor:
        answer = odeint(
            lambda t, x: network(t, x, *classes),
            Z,
            n_steps=n_steps,
            t_start=t_start,
            t_end=t_end,
            solver=solver,
            return_path=return_path,
        )
        return answer if return_path else answer.unsqueeze(0)

    starts, ends = (np.broadcast_to(np.asarray(t, dtype=Z.dtype), len(Z)) for t in (t_start, t_end))
    classes = [] if codes is None else [codes]
    return network(follow_chunk, Z, starts, ends, *classes, axis=1)
