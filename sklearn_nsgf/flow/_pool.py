"""The trajectory pool: many minibatch flows, simulated once and drawn from in training."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor

from sklearn_nsgf._torch import one_thread
from sklearn_nsgf.flow._particles import Trajectory, particle_flow
from sklearn_nsgf.flow._path import PathSample, straight_path
from sklearn_nsgf.flow._samplers import Sampler

# Accelerators simulate as many flows side by side as have plans of this size in all. On a CPU
# single flows stay in the cache, and none waits for a harder one.
_PLAN_SIZE_AT_ONCE = {"cuda": 2**26, "mps": 2**24}


class TrajectoryPool:
    """Paths of particles, from which training draws points and velocities.

    Between two nodes a path is straight, so that it has a velocity at every time and not only at
    the nodes; with harmonic steps that velocity hardly changes from one segment to the next.

    Parameters
    ----------
    paths : Tensor of shape (n_paths, n_nodes, n_features)
        Positions at the times ``k / (n_nodes - 1)``.
    """

    def __init__(self, paths: Tensor) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def sample(self, n_samples: int, generator: torch.Generator) -> PathSample:
        """Draw points at uniform times on random paths, with the paths' velocities there."""
        n_paths, n_segments = len(self.paths), self.paths.shape[1] - 1
        device = self.paths.device
        path = torch.randint(n_paths, (n_samples,), generator=generator, device=device)
        segment = torch.randint(n_segments, (n_samples,), generator=generator, device=device)
        return straight_path(
            self.paths[path, segment],
            self.paths[path, segment + 1],
            segment / n_segments,
            (segment + 1) / n_segments,
            torch.rand(n_samples, generator=generator, device=device),
        )


class PoolReport(NamedTuple):
    """A pool, with how well its Sinkhorn problems were solved.

    Attributes
    ----------
    pool : TrajectoryPool
    converged : float
        Share of the Sinkhorn problems that met the tolerance.
    marginal_error : float
        Largest marginal error of all of them.
    """

    pool: TrajectoryPool
    converged: float
    marginal_error: float


def build_trajectory_pool(
    source: Sampler,
    target: Sampler,
    *,
    n_flows: int,
    n_particles: int,
    seed: int,
    device: torch.device | str = "cpu",
    n_jobs: int | None = None,
    **flow_options: Any,
) -> PoolReport:
    """Simulate `n_flows` minibatch Sinkhorn flows and gather their paths.

    Every flow has a seed of its own, drawn up front, and runs on one thread: the pool is the same,
    bit by bit, for any `n_jobs` and backend.

    Parameters
    ----------
    source, target : Sampler
        Where the minibatches come from.
    n_flows : int
        Number of minibatch flows.
    n_particles : int
        Number of source and of target points in each.
    seed : int
    device : torch device, default="cpu"
        Where the flows are simulated, many in one tensor if it is not the CPU, and where the pool lies.
    n_jobs : int, default=None
        Flows at a time on the CPU. None takes what `joblib.parallel_config` says if that is more than
        one, and else as many as torch has threads. Threads are the default backend.
    **flow_options
        Passed on to `particle_flow`.

    Returns
    -------
    PoolReport

    Notes
    -----
    The pool takes ``4 * n_flows * n_particles * (n_steps + 1) * n_features`` bytes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf.flow import ArraySampler, GaussianSampler, build_trajectory_pool
    >>> target = ArraySampler(np.random.default_rng(0).uniform(size=(50, 2)))
    >>> report = build_trajectory_pool(
    ...     GaussianSampler([1.0, 1.0]), target, n_flows=3, n_particles=32, seed=0, blur=0.1, n_steps=4
    ... )
    >>> report.pool.paths.shape, report.converged
    (torch.Size([96, 5, 2]), 1.0)
    """
    device = torch.device(device)
    simulate = partial(
        _simulate,
        source=source,
        target=target,
        n_particles=n_particles,
        device=device,
        flow_options=flow_options,
    )
    seeds = np.random.SeedSequence(seed).spawn(n_flows)
    n_at_once = max(1, _PLAN_SIZE_AT_ONCE.get(device.type, 1) // n_particles**2)
    groups = [seeds[start : start + n_at_once] for start in range(0, n_flows, n_at_once)]
    n_threads = torch.get_num_threads()
    with one_thread():
        if device.type == "cpu":
            parallel = Parallel(n_jobs=_n_jobs_or_threads(n_jobs, n_threads), prefer="threads")
            trajectories = parallel(delayed(simulate)(group) for group in groups)
        else:
            trajectories = [simulate(group) for group in groups]
    return PoolReport(
        TrajectoryPool(
            torch.cat([trajectory.x.flatten(1, 2).transpose(0, 1) for trajectory in trajectories])
        ),
        torch.cat([trajectory.converged.flatten() for trajectory in trajectories]).float().mean().item(),
        torch.cat([trajectory.marginal_error.flatten() for trajectory in trajectories]).max().item(),
    )


def _simulate(
    seeds: list[np.random.SeedSequence],
    source: Sampler,
    target: Sampler,
    n_particles: int,
    device: torch.device,
    flow_options: dict[str, Any],
) -> Trajectory:
    """One flow for each seed, side by side."""
    draws = [
        (source.draw(n_particles, rng), target.draw(n_particles, rng))
        for rng in map(np.random.default_rng, seeds)
    ]
    x, y = (torch.from_numpy(np.stack(clouds)).to(device) for clouds in zip(*draws, strict=True))
    with one_thread():
        return particle_flow(x, y, **flow_options)


def _n_jobs_or_threads(n_jobs: int | None, n_threads: int) -> int:
    """What joblib makes of `n_jobs`, but all of torch's threads where nobody asked for a number."""
    effective = joblib.effective_n_jobs(n_jobs)
    return n_threads if n_jobs is None and effective == 1 else effective
