"""Pools of paths, from which training draws points and velocities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
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

# As many flows are simulated side by side as take so many numbers in all. On a CPU large ones are faster
# one by one, in its cache and without waiting for a harder one; small ones cost mostly calls.
_SIZE_AT_ONCE = {"cpu": 500_000, "cuda": 2**27, "mps": 2**25}
# A pool that holds fewer blocks than it is given in all renews this share of them at a time.
_RENEWED_SHARE = 8
# Bytes that a pool takes if nothing else is said.
_LARGEST_POOL = 2**30
# Bytes of the blocks that are made in one go, if a single group does not take more.
_LARGEST_PART = 2**27

Seeds = Sequence[np.random.SeedSequence]


class BlockMaker(Protocol):
    """Makes paths in blocks of equal size, each from a seed of its own.

    Attributes
    ----------
    n_paths : int
        Number of paths in a block.
    n_at_once : int
        Blocks that are made together differ from those made alone by rounding. From the second on, the
        seeds of as many are best asked for together: a power of two.
    """

    n_paths: int
    n_at_once: int

    def __call__(self, seeds: Seeds) -> Tensor:
        """Return the blocks of these seeds, of shape (n_blocks, n_paths, n_nodes, n_features)."""
        ...


class PathPool:
    """Paths of particles, from which training draws points and velocities.

    Between two nodes a path is straight, so that it has a velocity at every time and not only at
    the nodes; with harmonic steps that velocity hardly changes from one segment to the next.

    Parameters
    ----------
    paths : Tensor of shape (n_paths, n_nodes, n_features)
        The nodes lie at the times ``k / (n_nodes - 1)``.
    labels : Tensor of shape (n_paths,), optional
        Index of each path's class; a shorter one repeats itself.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf.flow import PathPool
    >>> pool = PathPool(torch.tensor([[[0.0], [3.0]]]))
    >>> pool.sample(2, torch.Generator().manual_seed(0)).v_t
    tensor([[3.],
            [3.]])
    """

    def __init__(self, paths: Tensor, labels: Tensor | None = None) -> None:
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def sample(self, n_samples: int, generator: torch.Generator) -> PathSample:
        """Draw points at uniform times on random paths, with the paths' velocities there."""
        paths, labels = self.paths, self.labels
        n_paths, n_segments = len(paths), paths.shape[1] - 1
        path = torch.randint(n_paths, (n_samples,), generator=generator, device=paths.device)
        segment = torch.randint(n_segments, (n_samples,), generator=generator, device=paths.device)
        batch = straight_path(
            paths[path, segment].float(),
            paths[path, segment + 1].float(),
            segment / n_segments,
            (segment + 1) / n_segments,
            torch.rand(n_samples, generator=generator, device=paths.device),
        )
        return batch if labels is None else batch._replace(y=labels[path % len(labels)])

    def followed_by(self, older: PathPool, n_paths: int) -> PathPool:
        """The paths of this pool and then those of an older one, at most `n_paths`."""
        pools = [self, older]
        paths = torch.cat([pool.paths.to(self.paths.device) for pool in pools])[:n_paths]
        if self.labels is None or older.labels is None:
            return PathPool(paths)
        labels = [
            labels.to(paths.device).repeat(len(pool) // len(labels))
            for pool, labels in ((self, self.labels), (older, older.labels))
        ]
        return PathPool(paths, torch.cat(labels)[:n_paths])


class TrajectoryPool(PathPool):
    """Paths that are made in blocks, some of them while training draws from the others.

    A pool that is given more blocks than it holds starts with the first ones and makes the others while it
    is drawn from, evenly over the expected draws: first in, first out. Every block has a seed of
    its own, and those that are made together are always the same ones: so is the pool, however often it
    is asked for some more.

    Parameters
    ----------
    make_blocks : BlockMaker
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
    labels : Tensor of shape (n_paths,), optional
        Index of the class of each path of a block, the same for all blocks.
    report : callable, optional
        Is called with the number of blocks that have been made, at most ten times, while the pool is
        filled. If it returns true, no more are made, now and later.

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
        labels: Tensor | None = None,
        report: Callable[[int], bool] | None = None,
    ) -> None:
        if n_blocks < 1 or (n_held is not None and n_held < 1):
            raise ValueError(f"n_blocks={n_blocks}, n_held={n_held}: expected at least one block.")
        self.make_blocks, self.n_draws = make_blocks, n_draws
        self.seeds = np.random.SeedSequence(seed).spawn(n_blocks)
        first = make_blocks(self.seeds[:1]).to(dtype)
        n_held = min(n_held or most_held(first), n_blocks)
        self.n_renewed = max(1, n_held // _RENEWED_SHARE)
        self.blocks = first.new_empty(n_held, *first.shape[1:])
        self.blocks[:1] = first
        self.n_made, self.n_drawn = 1, 0
        self._fill(report)
        super().__init__(self.blocks.flatten(0, 1), labels)

    def _fill(self, report: Callable[[int], bool] | None) -> None:
        if report is None:
            return self._make_until(len(self.blocks))
        for n_blocks in reporting_points(len(self.blocks)):
            self._make_until(n_blocks)
            if report(n_blocks):
                self.blocks, self.seeds = self.blocks[: self.n_made], self.seeds[: self.n_made]
                break

    def _make_until(self, n_blocks: int) -> None:
        """Make the next blocks, and with them the others of their group, in the place of the oldest."""
        n_group, n_held = self.make_blocks.n_at_once, len(self.blocks)
        n_part = max(1, _LARGEST_PART // (4 * self.blocks[0].numel() * n_group))
        while self.n_made < n_blocks:
            n_groups = min(math.ceil((n_blocks - self.n_made) / n_group), n_part)
            numbers = np.arange(self.n_made, min(self.n_made + n_groups * n_group, len(self.seeds)))
            new = self.make_blocks(self.seeds[numbers[0] : numbers[-1] + 1])
            self.blocks[numbers[-n_held:] % n_held] = new[-n_held:].to(self.blocks.dtype)
            self.n_made += len(numbers)

    def _renew(self) -> None:
        """Make the blocks that are due by now, if there are enough of them."""
        if self.n_draws == 0:
            return
        n_held = len(self.blocks)
        n_later = len(self.seeds) - n_held
        n_due = n_held + math.ceil(n_later * min(1.0, self.n_drawn / self.n_draws))
        if n_due - self.n_made >= min(self.n_renewed, len(self.seeds) - self.n_made):
            self._make_until(n_due)

    def sample(self, n_samples: int, generator: torch.Generator) -> PathSample:
        """Draw points at uniform times on random paths, with the paths' velocities there."""
        self._renew()
        self.n_drawn += 1
        return super().sample(n_samples, generator)


def most_held(block: Tensor) -> int:
    """How many blocks like this one a pool holds if nothing else is said."""
    return max(1, _LARGEST_POOL // (block.numel() * block.element_size()))


def reporting_points(n_blocks: int) -> list[int]:
    """Numbers of blocks at which a pool of so many reports, ten at most."""
    return [math.ceil(n_blocks * (k + 1) / min(10, n_blocks)) for k in range(min(10, n_blocks))]


class StackedBlocks:
    """Blocks that consist of smaller ones: of the flow of each class.

    Parameters
    ----------
    makers : list of BlockMaker
        One for each part of a block.
    """

    def __init__(self, makers: Sequence[BlockMaker]) -> None:
        self.makers = makers
        self.n_paths = sum(maker.n_paths for maker in makers)
        self.n_at_once = max(maker.n_at_once for maker in makers)

    def __call__(self, seeds: Seeds) -> Tensor:
        if len(self.makers) == 1:
            return self.makers[0](seeds)
        own_seeds = zip(*(_children(seed, len(self.makers)) for seed in seeds), strict=True)
        return torch.cat([make(own) for make, own in zip(self.makers, own_seeds, strict=True)], dim=1)


def _children(seed: np.random.SeedSequence, n_children: int) -> list[np.random.SeedSequence]:
    """Those that `spawn` returns the first time, whenever it is asked for."""
    keys = [(*seed.spawn_key, k) for k in range(n_children)]
    return [np.random.SeedSequence(seed.entropy, spawn_key=key) for key in keys]


class SinkhornFlows:
    """Makes paths of minibatch Sinkhorn flows, a flow a block.

    Every flow runs on one thread, the small ones in groups: they are the same, bit by bit, for any `n_jobs`
    and backend.

    Parameters
    ----------
    source, target : Sampler
        Where the minibatches come from.
    n_particles : int
        Number of source points in each flow.
    n_targets : int, default=None
        Number of target points, by default `n_particles`.
    device : torch device, default="cpu"
        Where the flows are simulated, and where the pool lies. Many of them go side by side in one tensor,
        on a CPU only the small ones.
    n_jobs : int, default=None
        Flows at a time on the CPU. None takes what `joblib.parallel_config` says if that is more than
        one, and else as many as torch has threads. Threads are the default backend.
    **flow_options
        Passed on to `particle_flow`.

    Attributes
    ----------
    n_at_once : int
        Number of flows side by side, a power of two.
    n_problems, n_converged : int
        Number of Sinkhorn problems so far, and of those that met the tolerance.
    marginal_error : float
        Largest marginal error of all of them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf.flow import ArraySampler, GaussianSampler, SinkhornFlows, TrajectoryPool
    >>> target = ArraySampler(np.random.default_rng(0).uniform(size=(50, 2)))
    >>> flows = SinkhornFlows(GaussianSampler([1.0, 1.0]), target, n_particles=32, blur=0.1, n_steps=4)
    >>> pool = TrajectoryPool(flows, n_blocks=3, seed=0)
    >>> pool.paths.shape, flows.n_converged / flows.n_problems
    (torch.Size([96, 5, 2]), 1.0)
    """

    def __init__(
        self,
        source: Sampler,
        target: Sampler,
        *,
        n_particles: int,
        n_targets: int | None = None,
        device: torch.device | str = "cpu",
        n_jobs: int | None = None,
        **flow_options: Any,
    ) -> None:
        self.source, self.target = source, target
        self.n_paths = self.n_particles = n_particles
        self.n_targets = n_targets or n_particles
        self.device, self.n_jobs, self.flow_options = torch.device(device), n_jobs, flow_options
        self.n_converged = self.n_problems = 0
        self.marginal_error = 0.0

    def __call__(self, seeds: Seeds) -> Tensor:
        groups = [seeds[start : start + self.n_at_once] for start in range(0, len(seeds), self.n_at_once)]
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

    @cached_property
    def n_at_once(self) -> int:
        n_features = self.target.draw(1, np.random.default_rng(0)).shape[1]
        return n_flows_at_once(self.n_particles, self.n_targets, n_features, self.device.type)

    def _simulate(self, seeds: Seeds) -> tuple[Tensor, Tensor, Tensor]:
        """Paths of one flow for each seed, side by side, and how well they were solved."""
        draws = [
            (self.source.draw(self.n_particles, rng), self.target.draw(self.n_targets, rng))
            for rng in map(np.random.default_rng, seeds)
        ]
        x, y = (torch.from_numpy(np.stack(clouds)).to(self.device) for clouds in zip(*draws, strict=True))
        with one_thread:
            flow = particle_flow(x, y, **self.flow_options)
        return flow.x.movedim(0, -2), flow.converged, flow.marginal_error


def n_flows_at_once(n_particles: int, n_targets: int, n_features: int, device: str) -> int:
    """How many flows of this size are simulated side by side: a power of two."""
    n_flows = max(1, _SIZE_AT_ONCE[device] // (n_particles * (n_targets + 2 * n_features)))
    return 1 << (n_flows.bit_length() - 1)


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

    n_at_once = 1

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
        self.source, self.target, self.coupling = source, target, coupling
        self.n_points = [int(min(n_points, sampler.n_rows)) for sampler in (source, target)]
        self.n_paths = max(self.n_points)
        self.device, self.n_jobs, self.coupling_options = torch.device(device), n_jobs, coupling_options

    def __call__(self, seeds: Seeds) -> Tensor:
        return torch.stack(_in_parallel(self._couple, seeds, self.n_jobs)).to(self.device)

    def _couple(self, seed: np.random.SeedSequence) -> Tensor:
        rng = np.random.default_rng(seed)
        x, y = (
            torch.from_numpy(sampler.draw(n_points, rng))
            for sampler, n_points in zip((self.source, self.target), self.n_points, strict=True)
        )
        with one_thread:
            rows, columns = couple(x, y, self.coupling, rng, **self.coupling_options)
        return torch.stack([x[rows], y[columns]], dim=1)


def _in_parallel(action: Any, arguments: Sequence[Any], n_jobs: int | None) -> list[Any]:
    n_threads = torch.get_num_threads()
    with one_thread:
        parallel = Parallel(n_jobs=_n_jobs_or_threads(n_jobs, n_threads), prefer="threads")
        return list(parallel(delayed(action)(argument) for argument in arguments))


def _n_jobs_or_threads(n_jobs: int | None, n_threads: int) -> int:
    """What joblib makes of `n_jobs`, but all of torch's threads where nobody asked for a number."""
    effective = joblib.effective_n_jobs(n_jobs)
    return n_threads if n_jobs is None and effective == 1 else effective
