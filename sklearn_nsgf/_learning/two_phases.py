"""Two phases of one network: the second is learnt from where the network itself takes the sources."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from sklearn_nsgf._learning.strata import Stratum
from sklearn_nsgf._model.leg import NetworkOnRows
from sklearn_nsgf._model.model import follow_leg
from sklearn_nsgf.flow import PathSample, PushforwardSampler, TrajectoryPool


class TwoPhases:
    """Draws batches of which a half lies in either half of the time.

    Parameters
    ----------
    first : TrajectoryPool
        Whole paths, of which the first half counts.
    second : TrajectoryPool
        Paths from the middle of the time on.
    """

    def __init__(self, first: TrajectoryPool, second: TrajectoryPool) -> None:
        self.first, self.second = first, second
        self.n_drawn = 0

    def sample(self, n_samples: int, generator: torch.Generator) -> PathSample:
        # Also batches of a single point must reach both halves.
        n_second = (n_samples + self.n_drawn % 2) // 2
        self.n_drawn += 1
        early = self.first.sample(n_samples - n_second, generator, t_end=0.5)
        late = self.second.sample(n_second, generator)
        late = late._replace(t=0.5 + late.t / 2, v_t=2 * late.v_t)
        labels = None
        if early.labels is not None and late.labels is not None:
            labels = torch.cat([early.labels, late.labels])
        return PathSample(*map(torch.cat, zip(early[:3], late[:3], strict=True)), labels)

    def state_dict(self) -> dict[str, Any]:
        """The second paths are kept: they start where the network was when they were made."""
        return {
            "first": self.first.state_dict(),
            "second": self.second.state_dict(with_blocks=True),
            "n_drawn": self.n_drawn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first.load_state_dict(state["first"])
        self.second.load_state_dict(state["second"])
        self.n_drawn = state["n_drawn"]


def moved_halfway(
    strata: list[Stratum], network: NetworkOnRows, n_steps: int, solver: str, *, are_seen: bool
) -> list[Stratum]:
    """The same flows, from where a network takes their sources in half of the time.

    The network may go on learning: it is asked whenever rows are drawn.
    """

    def moved(stratum: Stratum) -> Stratum:
        transport = partial(_follow_half, network, stratum.code if are_seen else None, n_steps, solver)
        sampler = PushforwardSampler(stratum.source.sampler, transport)
        return stratum._replace(source=stratum.source._replace(sampler=sampler))

    return [moved(stratum) for stratum in strata]


def _follow_half(
    network: NetworkOnRows, code: int | None, n_steps: int, solver: str, Z: np.ndarray
) -> np.ndarray:
    codes = None if code is None else np.full(len(Z), code)
    halfway = follow_leg(network, Z, codes, 0.0, 0.5, n_steps, solver)[-1]
    if not np.isfinite(halfway).all():
        raise FloatingPointError(
            "The network takes points to infinity or NaN while it is trained. Lower learning_rate, or look "
            "for extreme outliers in the data."
        )
    return halfway
