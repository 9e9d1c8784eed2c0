"""What a leg is learnt from: paths of Sinkhorn flows, or straight lines between paired points."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from sklearn_nsgf._documentation import question
from sklearn_nsgf._learning.strata import Stratum
from sklearn_nsgf._verbose import say
from sklearn_nsgf._warn import warn_caller
from sklearn_nsgf.flow import (
    BlockMaker,
    Couplings,
    SinkhornFlows,
    TrajectoryPool,
    blur_schedule,
    step_sizes,
)

# However short a training is: with fewer it would learn what it has first by heart.
FEWEST_BLOCKS = 8


class Paths(Protocol):
    """Says which paths a leg is learnt from.

    Attributes
    ----------
    n_blocks : int
        Number of minibatches in all.
    blur : float or (float, float)
        In the units of the flow.
    end : float
        Time at which the paths end.
    training_task : str
        What callbacks call the training.
    """

    n_blocks: int
    blur: Any
    training_task: str

    def shortened(self, share: float) -> Paths:
        """The same for a part of a training."""
        ...

    @property
    def end(self) -> float: ...

    def n_points(self, strata: list[Stratum]) -> int:
        """Points of each minibatch, of all classes together."""
        ...

    def make_blocks(self, stratum: Stratum, n_points: int, device: torch.device) -> BlockMaker:
        """Make paths from so many source points of a class."""
        ...

    def report(self, pool: TrajectoryPool, verbose: bool) -> None:
        """Say what there is to say about the paths of a training that is over."""
        ...


class SinkhornPaths(NamedTuple):
    """Paths of particles along Sinkhorn flows; see `SinkhornFlowTransport`.

    Only the steps that begin before `t_end` are simulated.
    """

    n_blocks: int
    batch_size: int
    blur: float | tuple[float, float]
    n_steps: int
    step_size: Any
    tol: float
    n_jobs: int | None
    t_end: float = 1.0

    training_task = "training"

    def shortened(self, share: float) -> SinkhornPaths:
        return self._replace(n_blocks=_part(self.n_blocks, share))

    @property
    def n_simulated(self) -> int:
        return math.ceil(self.t_end * self.n_steps)

    @property
    def end(self) -> float:
        """Time of the whole flow at which the paths end."""
        return self.n_simulated / self.n_steps

    def n_points(self, strata: list[Stratum]) -> int:
        n_rows = [sum(side.sampler.n_rows for side in sides) for sides in _sides(strata)]
        return int(min(self.batch_size, *n_rows))

    def make_blocks(self, stratum: Stratum, n_points: int, device: torch.device) -> SinkhornFlows:
        source, target = stratum.source.sampler, stratum.target.sampler
        n_simulated, blur = self.n_simulated, self.blur
        if np.ndim(blur):
            blurs = blur_schedule(blur, self.n_steps)[:n_simulated]
            blur = blurs[0], blurs[-1]
        return SinkhornFlows(
            source,
            target,
            n_particles=int(min(n_points, source.n_rows)),
            n_targets=int(min(n_points, target.n_rows)),
            device=device,
            n_jobs=self.n_jobs,
            blur=blur,
            n_steps=n_simulated,
            step_size=step_sizes(self.step_size, self.n_steps)[:n_simulated],
            tol=self.tol,
        )

    def report(self, pool: TrajectoryPool, verbose: bool) -> None:
        makers: list[SinkhornFlows] = pool.maker.makers
        n_failed = sum(each.n_failed for each in makers)
        failed = n_failed / sum(each.n_problems for each in makers)
        if verbose:
            share = 100 * (1 - failed)
            flows = "flow" if pool.n_made == 1 else "flows"
            say("simulated %d Sinkhorn %s, %.0f %% of the steps converged", pool.n_made, flows, share)
        if n_failed:
            n_due = len(pool.seeds)
            cut = f", so that only {pool.n_made} of {n_due} flows were simulated" if pool.is_cut else ""
            warn_caller(
                f"{failed:.1%} of the Sinkhorn problems did not reach sinkhorn_tol={self.tol}{cut}; the "
                f"largest marginal error is {max(each.marginal_error for each in makers):.2g}. If the data "
                f'have heavy tails, set frame="quantile". Otherwise raise blur (blur_={self.blur}) or '
                "sinkhorn_tol." + question("faq-convergence"),
                ConvergenceWarning,
            )


class StraightPaths(NamedTuple):
    """Straight lines between paired points; see `FlowMatchingTransport`."""

    n_blocks: int
    batch_size: int
    coupling: str
    blur: float
    n_jobs: int | None

    end = 1.0
    training_task = "straight flow"

    def shortened(self, share: float) -> StraightPaths:
        return self._replace(n_blocks=_part(self.n_blocks, share))

    def n_points(self, strata: list[Stratum]) -> int:
        if len(strata) == 1:
            return self.batch_size
        # Larger minibatches would have other shares of the classes.
        sources, _ = _sides(strata)
        return int(min(self.batch_size, sum(side.sampler.n_rows for side in sources)))

    def make_blocks(self, stratum: Stratum, n_points: int, device: torch.device) -> Couplings:
        return Couplings(
            stratum.source.sampler,
            stratum.target.sampler,
            coupling=self.coupling,
            n_points=n_points,
            device=device,
            n_jobs=self.n_jobs,
            blur=self.blur,
        )

    def report(self, pool: TrajectoryPool, verbose: bool) -> None:
        pass


def _part(n_blocks: int, share: float) -> int:
    return min(n_blocks, max(FEWEST_BLOCKS, math.ceil(share * n_blocks)))


def _sides(strata: list[Stratum]):
    return [each.source for each in strata], [each.target for each in strata]
