"""Pools of paths, from which training draws points and velocities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import joblib
import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor

from sklearn_nsgf._torch import one_thread
from sklearn_nsgf.flow._coupling import couple
from sklearn_nsgf.flow._particles import particle_flow
from sklearn_nsgf.flow._path import PathSample, straight_path
from sklearn_nsgf.flow._samplers import Sampler

# Accelerators simulate as many flows side by side as have plans of this size in all. On a CPU
# single flows stay in the cache, and none waits for a harder one.
_PLAN_SIZE_AT_ONCE = {"cuda": 2**26, "mps": 2**24}
# A pool that holds fewer blocks than it is given in all renews this share of them at a time.
_RENEWED_SHARE = 8
# Bytes that a pool takes if nothing else is said.
_LARGEST_POOL = 2**30
# Bytes of the blocks that are made in one go.
_LARGEST_PART = 2**27

Seeds = Sequence[np.random.SeedSequence]


class BlockMaker(Protocol):
    """Makes paths in blocks of equal size, each from a seed of its own."""

    def __call__(self, seeds: Seeds) -> Tensor:
        """Return the blocks of these seeds, of shape (n_blocks, n_paths, n_nodes, n_features)."""
        ...


class TrajectoryPool:
    """Paths of particles, made in blocks, from which training draws points and velocities.

    Between two nodes a path is straight, so that it has a velocity at every time and not only at
    the nodes; with harmonic steps that velocity hardly changes from one segment to the next.

    A pool that is given more blocks than it holds starts with the first ones and makes the others while it
    is drawn from, evenly over the expected draws: first in, first out. Every block has a seed of
    its own, so that the pool is the same however many are made at a time.

    Parameters
    ----------
    make_blocks : callable
        Takes a list of seeds, returns a tensor of shape (n_blocks, n_paths, n_nodes, n_features).
        The nodes lie at the times ``k / (n_nodes - 1)``.
    n_blocks : int
        Number of blocks in all.
    seed : int
    n_held : int, default=None
        Number of blocks held at a time; by default as many as 1 GiB can hold.
    n_draws : int, default=0
        Expected number of calls of `sample`; 0 keeps the first blocks.
    dtype : torch.dtype, default=torch.float32
        In which the paths are kept. float16 halves the memory and moves points by 0.05 % of
        their distance from the origin.

    Attributes
    ----------
    paths : Tensor of shape (n_paths, n_nodes, n_features)
        Those held at present.
    """

    def __init__(
        self,
        make_blocks: BlockMaker,
        *,
        n_blocks: int,
        seed: int,
        n_held: int | None = None,
        n_draws: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if n_blocks < 1 or (n_held is not None and n_held < 1):
            raise ValueError(f"n_blocks={n_blocks}, n_held={n_held}: expected at least one block.")
        self.make_blocks, self.n_draws = make_blocks, n_draws
        self.seeds = np.random.SeedSequence(seed).spawn(n_blocks)
        first = make_blocks(self.seeds[:1]).to(dtype)
        if n_held is None:
            n_held = max(1, _LARGEST_POOL // (first.numel() * first.element_size()))
        self.n_held = min(n_held, n_blocks)
        self.n_renewed = max(1, self.n_held // _RENEWED_SHARE)
        self.blocks = first.new_empty(self.n_held, *first.shape[1:])
        self.blocks[:1] = first
        self.n_made, self.n_drawn = 1, 0
        self._make_until(self.n_held)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def paths(self) -> Tensor:
        return self.blocks.flatten(0, 1)

    def _make_until(self, n_blocks: int) -> None:
        """Make the next blocks in the place of the oldest."""
        n_at_once = max(1, _LARGEST_PART // (4 * self.blocks[0].numel()))
        while self.n_made < n_blocks:
            place = self.n_made % self.n_held
            n_new = min(n_blocks - self.n_made, self.n_held - place, n_at_once)
            new = self.make_blocks(self.seeds[self.n_made : self.n_made + n_new])
            self.blocks[place : place + n_new] = new.to(self.blocks.dtype)
            self.n_made += n_new

    def _renew(self) -> None:
        """Make the blocks that are due by now, if there are enough of them."""
        if self.n_draws == 0:
            return
        n_later = len(self.seeds) - self.n_held
        n_due = self.n_held + math.ceil(n_later * min(1.0, self.n_drawn / self.n_draws))
        if n_due - self.n_made >= min(self.n_renewed, len(self.seeds) - self.n_made):
            self._make_until(n_due)

    def sample(self, n_samples: int, generator: torch.Generator) -> PathSample:
        """Draw points at uniform times on random paths, with the paths' velocities there."""
        self._renew()
        self.n_drawn += 1
        paths = self.paths
        n_paths, n_segments = len(paths), paths.shape[1] - 1
        path = torch.randint(n_paths, (n_samples,), generator=generator, device=paths.device)
        segment = torch.randint(n_segments, (n_samples,), generator=generator, device=paths.device)
        return straight_path(
            paths[path, segment].float(),
            paths[path, segment + 1].float(),
            segment / n_segments,
            (segment + 1) / n_segments,
            torch.rand(n_samples, generator=generator, device=paths.device),
        )


class SinkhornFlows:
    """Makes paths of minibatch Sinkhorn flows, a flow a block.

    Every flow runs on one thread: it is the same, bit by bit, for any `n_jobs` and backend.

    Parameters
    ----------
    source, target : Sampler
        Where the minibatches come from.
    n_particles : int
        Number of source and of target points in each.
    device : torch device, default="cpu"
        Where the flows are simulated, many in one tensor if it is not the CPU, and where the pool lies.
    n_jobs : int, default=None
        Flows at a time on the CPU. None takes what `joblib.parallel_config` says if that is more than
        one, and else as many as torch has threads. Threads are the default backend.
    **flow_options
        Passed on to `particle_flow`.

    Attributes
    ----------
    converged : float
        Share of the Sinkhorn problems so far that met the tolerance.
    marginal_error : float
        Largest marginal error of all of them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf.flow import ArraySampler, GaussianSampler, SinkhornFlows, TrajectoryPool
    >>> target = ArraySampler(np.random.default_rng(0).uniform(size=(50, 2)))
    >>> flows = SinkhornFlows(GaussianSampler([1.0, 1.0]), target, n_particles=32, blur=0.1, n_steps=4)
    >>> pool = TrajectoryPool(flows, n_blocks=3, seed=0)
    >>> pool.paths.shape, flows.converged
    (torch.Size([96, 5, 2]), 1.0)
    """

    def __init__(
        self,
        source: Sampler,
        target: Sampler,
        *,
        n_particles: int,
        device: torch.device | str = "cpu",
        n_jobs: int | None = None,
        **flow_options: Any,
    ) -> None:
        self.source, self.target, self.n_particles = source, target, n_particles
        self.device, self.n_jobs, self.flow_options = torch.device(device), n_jobs, flow_options
        self.n_converged = self.n_problems = 0
        self.marginal_error = 0.0

    @property
    def converged(self) -> float:
        return self.n_converged / max(1, self.n_problems)

    def __call__(self, seeds: Seeds) -> Tensor:
        n_at_once = max(1, _PLAN_SIZE_AT_ONCE.get(self.device.type, 1) // self.n_particles**2)
        groups = [seeds[start : start + n_at_once] for start in range(0, len(seeds), n_at_once)]
        if self.device.type == "cpu":
            flows = _in_parallel(self._simulate, groups, self.n_jobs)
        else:
            flows = [self._simulate(group) for group in groups]
        converged = torch.cat([converged.flatten() for _, converged, _ in flows])
        errors = [error.max().item() for _, _, error in flows]
        self.n_converged += int(converged.sum().item())
        self.n_problems += len(converged)
        if not np.isfinite(errors).all():
            raise FloatingPointError(
                f"The Sinkhorn flows are not finite with {self.flow_options}. Raise blur, or look for "
                "extreme outliers in the data."
            )
        self.marginal_error = max(self.marginal_error, *errors)
        return torch.cat([paths for paths, _, _ in flows])

    def _simulate(self, seeds: Seeds) -> tuple[Tensor, Tensor, Tensor]:
        """Paths of one flow for each seed, side by side, and how well they were solved."""
        draws = [
            (self.source.draw(self.n_particles, rng), self.target.draw(self.n_particles, rng))
            for rng in map(np.random.default_rng, seeds)
        ]
        x, y = (torch.from_numpy(np.stack(clouds)).to(self.device) for clouds in zip(*draws, strict=True))
        with one_thread():
            flow = particle_flow(x, y, **self.flow_options)
        return flow.x.movedim(0, -2), flow.converged, flow.marginal_error


class Couplings:
    """Makes straight paths between paired points of two minibatches, a pair of minibatches a block.

    Parameters
    ----------
    source, target : Sampler
        Where the minibatches come from.
    coupling : {"independent", "exact", "sinkhorn"}
        See `couple`.
    n_points : int
        Number of points in each minibatch, or as many as there are on one side.
    device : torch device, default="cpu"
        Where the pool lies.
    n_jobs : int, default=None
        Minibatches at a time, as in `SinkhornFlows`.
    **coupling_options
        Passed on to `couple`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf.flow import ArraySampler, Couplings, GaussianSampler, TrajectoryPool
    >>> target = ArraySampler(np.random.default_rng(0).uniform(size=(50, 2)))
    >>> couplings = Couplings(GaussianSampler([1.0, 1.0]), target, coupling="exact", n_points=40)
    >>> TrajectoryPool(couplings, n_blocks=3, seed=0).paths.shape
    torch.Size([120, 2, 2])
    """

    def __init__(
        self,
        source: Sampler,
        target: Sampler,
        *,
        coupling: str,
        n_points: int,
        device: torch.device | str = "cpu",
        n_jobs: int | None = None,
        **coupling_options: Any,
    ) -> None:
        self.source, self.target, self.coupling, self.n_points = source, target, coupling, n_points
        self.device, self.n_jobs, self.coupling_options = torch.device(device), n_jobs, coupling_options

    def __call__(self, seeds: Seeds) -> Tensor:
        return torch.stack(_in_parallel(self._couple, seeds, self.n_jobs)).to(self.device)

    def _couple(self, seed: np.random.SeedSequence) -> Tensor:
        rng = np.random.default_rng(seed)
        x, y = (
            torch.from_numpy(sampler.draw(int(min(self.n_points, sampler.n_rows)), rng))
            for sampler in (self.source, self.target)
        )
        with one_thread():
            rows, columns = couple(x, y, self.coupling, rng, **self.coupling_options)
        return torch.stack([x[rows], y[columns]], dim=1)


def _in_parallel(action: Any, arguments: Sequence[Any], n_jobs: int | None) -> list[Any]:
    n_threads = torch.get_num_threads()
    with one_thread():
        parallel = Parallel(n_jobs=_n_jobs_or_threads(n_jobs, n_threads), prefer="threads")
        return list(parallel(delayed(action)(argument) for argument in arguments))


def _n_jobs_or_threads(n_jobs: int | None, n_threads: int) -> int:
    """What joblib makes of `n_jobs`, but all of torch's threads where nobody asked for a number."""
    effective = joblib.effective_n_jobs(n_jobs)
    return n_threads if n_jobs is None and effective == 1 else effective
