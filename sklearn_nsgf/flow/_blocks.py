"""Paths in blocks: what a pool is made of, simulated or straight, on several CPUs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import joblib
import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor

from sklearn_nsgf._torch import Chunks, one_thread
from sklearn_nsgf.flow._coupling import couple
from sklearn_nsgf.flow._samplers import Sampler
from sklearn_nsgf.flow._trajectory import particle_flow

# As many flows are simulated side by side as take so many numbers in all. On a CPU large ones are faster
# one by one, in its cache and without waiting for a harder one; small ones cost mostly calls.
_SIZE_AT_ONCE = {"cpu": 500_000, "cuda": 2**27, "mps": 2**25}
# Into how many messages for each worker of another process the minibatches of a call go.
_SHARES_PER_WORKER = 3

Seeds = Sequence[np.random.SeedSequence]
# Paths, whether their problems are solved, and the marginal errors.
Flows = tuple[Tensor, Tensor, Tensor]


class BlockMaker(Protocol):
    """Makes paths in blocks of equal shape, each from a seed of its own.

    Attributes
    ----------
    n_paths : int
        Number of paths in a block.
    block_shape : (int, int, int)
        The numbers of paths, nodes and features, known before any block is made.
    n_at_once : int
        Number of blocks that are best made together: a power of two. They differ by rounding from the same
        blocks made alone.
    differs : bool
        Whether blocks of different seeds hold different paths.
    n_failed : int
        Number of problems so far that took all the rounds they may and were not solved.
    device : torch device
        Where the blocks lie.
    """

    @property
    def n_paths(self) -> int: ...

    @property
    def block_shape(self) -> tuple[int, int, int]: ...

    @property
    def n_at_once(self) -> int: ...

    @property
    def differs(self) -> bool: ...

    @property
    def n_failed(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, seeds: Seeds) -> Tensor:
        """Return the blocks of these seeds, of shape (n_blocks, n_paths, n_nodes, n_features)."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it has counted so far."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Count on from there."""
        ...


class StackedBlocks:
    """Blocks that consist of smaller ones: of the flow of each class.

    Parameters
    ----------
    makers : list of BlockMaker
        One for each part of a block.
    """

    n_paths: int
    block_shape: tuple[int, ...]
    n_at_once: int
    differs: bool

    def __init__(self, makers: Sequence[BlockMaker]) -> None:
        self.makers = makers
        self.n_paths = sum(maker.n_paths for maker in makers)
        self.block_shape = (self.n_paths, *makers[0].block_shape[1:])
        self.n_at_once = max(maker.n_at_once for maker in makers)
        self.differs = any(maker.differs for maker in makers)

    @property
    def n_failed(self) -> int:
        return sum(maker.n_failed for maker in self.makers)

    @property
    def device(self) -> torch.device:
        return self.makers[0].device

    def __call__(self, seeds: Seeds) -> Tensor:
        if len(self.makers) == 1:
            return self.makers[0](seeds)
        own_seeds = zip(*(_children(seed, len(self.makers)) for seed in seeds), strict=True)
        return torch.cat([maker(own) for maker, own in zip(self.makers, own_seeds, strict=True)], dim=1)

    def state_dict(self) -> dict[str, Any]:
        return {"makers": [maker.state_dict() for maker in self.makers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for maker, own in zip(self.makers, state["makers"], strict=True):
            maker.load_state_dict(own)


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
    n_steps : int
        Number of steps of each flow.
    device : torch device, default="cpu"
        Where the flows are simulated, and where the pool lies. Many of them go side by side in one tensor,
        on a CPU only the small ones.
    n_jobs : int, default=None
        Flows at a time on the CPU. None takes what `joblib.parallel_config` says if that is more than
        one, and else as many as torch has threads. Threads are the default backend.
    **flow_options
        Passed on to `particle_flow`, with `n_steps`.

    Attributes
    ----------
    n_at_once : int
        Number of flows simulated side by side, a power of two.
    differs : bool
        Whether one flow differs from another: not if each takes all rows of both sides.
    n_problems, n_converged, n_failed : int
        Number of Sinkhorn problems so far, of those that met the tolerance, and of the others.
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

    source: Sampler
    target: Sampler
    n_paths: int
    n_particles: int
    n_targets: int
    device: torch.device
    n_jobs: int | None
    flow_options: dict[str, Any]
    block_shape: tuple[int, ...]
    differs: bool
    n_converged: int
    n_problems: int
    marginal_error: float

    def __init__(
        self,
        source: Sampler,
        target: Sampler,
        *,
        n_particles: int,
        n_targets: int | None = None,
        n_steps: int,
        device: torch.device | str = "cpu",
        n_jobs: int | None = None,
        **flow_options: Any,
    ) -> None:
        self.source, self.target = source, target
        self.n_paths = self.n_particles = n_particles
        self.n_targets = n_targets or n_particles
        self.device, self.n_jobs = torch.device(device), n_jobs
        self.flow_options = {"n_steps": n_steps, **flow_options}
        self.block_shape = n_particles, n_steps + 1, source.n_features
        self.differs = not (source.draws_all(n_particles) and target.draws_all(self.n_targets))
        self.n_converged = self.n_problems = 0
        self.marginal_error = 0.0
        self.chunks: Chunks[Flows] = Chunks(
            "flows",
            "Not even one flow fits: lower n_particles (flow_batch_size of an estimator), or use the CPU.",
        )

    def __call__(self, seeds: Seeds) -> Tensor:
        groups = [seeds[start : start + self.n_at_once] for start in range(0, len(seeds), self.n_at_once)]
        simulate: Callable[..., list[Flows]] = partial(
            _simulate, chunks=self.chunks, device=self.device, **self.flow_options
        )
        if self.device.type == "cpu":
            simulated = _in_parallel(self._draw, simulate, groups, self.n_jobs)
        else:
            simulated = [simulate(*self._draw(group)) for group in groups]
        flows = list(itertools.chain.from_iterable(simulated))
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

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("n_converged", "n_problems", "marginal_error")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    @property
    def n_failed(self) -> int:
        return self.n_problems - self.n_converged

    @property
    def n_at_once(self) -> int:
        n_numbers = self.n_particles * (self.n_targets + 2 * self.target.n_features)
        n_flows = max(1, _SIZE_AT_ONCE[self.device.type] // n_numbers)
        return 1 << (n_flows.bit_length() - 1)

    def _draw(self, seeds: Seeds) -> tuple[Tensor, Tensor]:
        draws = [
            (self.source.draw(self.n_particles, rng), self.target.draw(self.n_targets, rng))
            for rng in map(np.random.default_rng, seeds)
        ]
        x, y = (torch.from_numpy(np.stack(clouds)) for clouds in zip(*draws, strict=True))
        return x, y


def _simulate(
    x: Tensor, y: Tensor, *, chunks: Chunks[Flows], device: torch.device, **options: Any
) -> list[Flows]:
    """The flows between pairs of clouds, all side by side or, where they do not fit, in parts."""

    def simulate_part(part: slice) -> Flows:
        with one_thread:
            flow = particle_flow(x[part].to(device), y[part].to(device), **options)
        return flow.x.movedim(0, -2), flow.converged, flow.marginal_error

    return chunks(simulate_part, len(x), len(x))


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

    n_at_once: int = 1
    n_failed: int = 0
    source: Sampler
    target: Sampler
    coupling: str
    n_sources: int
    n_targets: int
    n_paths: int
    block_shape: tuple[int, ...]
    differs: bool
    device: torch.device
    n_jobs: int | None
    coupling_options: dict[str, Any]

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
        self.n_sources, self.n_targets = (int(min(n_points, side.n_rows)) for side in (source, target))
        self.n_paths = max(self.n_sources, self.n_targets)
        self.block_shape = self.n_paths, 2, source.n_features
        # A pair of whole samples of one size has one assignment.
        is_assignment = coupling == "exact" and self.n_sources == self.n_targets
        draws_all = source.draws_all(self.n_sources) and target.draws_all(self.n_targets)
        self.differs = not (is_assignment and draws_all)
        self.device, self.n_jobs, self.coupling_options = torch.device(device), n_jobs, coupling_options

    def __call__(self, seeds: Seeds) -> Tensor:
        pair = partial(_pair, coupling=self.coupling, **self.coupling_options)
        return torch.stack(_in_parallel(self._draw, pair, seeds, self.n_jobs)).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _draw(self, seed: np.random.SeedSequence) -> tuple[Tensor, Tensor, np.random.Generator]:
        rng = np.random.default_rng(seed)
        x = torch.from_numpy(self.source.draw(self.n_sources, rng))
        y = torch.from_numpy(self.target.draw(self.n_targets, rng))
        return x, y, rng


def _pair(x: Tensor, y: Tensor, rng: np.random.Generator, *, coupling: str, **options: Any) -> Tensor:
    with one_thread:
        rows, columns = couple(x, y, coupling, rng, **options)
    return torch.stack([x[rows], y[columns]], dim=1)


def _in_parallel(draw: Any, solve: Any, arguments: Sequence[Any], n_jobs: int | None) -> list[Any]:
    """What `solve` makes of the draw for each argument.

    Threads draw for themselves. Other workers are sent the draws: a sampler holds a whole sample, or a file
    that another machine need not have. They get them in a few shares, as each message takes milliseconds of
    the sender's time. Nobody is sent a single draw.
    """
    n_threads = torch.get_num_threads()
    with one_thread:
        if len(arguments) == 1:
            return [solve(*draw(arguments[0]))]
        n_jobs = _n_jobs_or_threads(n_jobs, n_threads)
        parallel = Parallel(n_jobs=n_jobs, prefer="threads")
        backend, _ = joblib.parallel.get_active_backend(prefer="threads")
        if getattr(backend, "supports_sharedmem", False):
            return list(parallel(delayed(_draw_and_solve)(draw, solve, argument) for argument in arguments))
        n_shares = min(len(arguments), _SHARES_PER_WORKER * joblib.effective_n_jobs(n_jobs))
        bounds = [k * len(arguments) // n_shares for k in range(n_shares + 1)]
        shares = [arguments[start:stop] for start, stop in itertools.pairwise(bounds)]
        draws = ([_packed(draw(argument)) for argument in share] for share in shares)
        tasks = (delayed(_solve_all)(solve, share) for share in draws)
        return [_unpacked(solved) for solved in itertools.chain.from_iterable(parallel(tasks))]


def _solve_all(solve: Any, draws: Sequence[Any]) -> list[Any]:
    return [_packed(solve(*_unpacked(draw))) for draw in draws]


def _packed(parts: Any) -> Any:
    """The same with arrays for tensors: torch pickles a tensor on its own, an array goes as it lies."""
    if isinstance(parts, list | tuple):
        return type(parts)(map(_packed, parts))
    return parts.numpy() if isinstance(parts, Tensor) else parts


def _unpacked(parts: Any) -> Any:
    """What was packed. The arrays of a message may be read-only, which tensors cannot be."""
    if isinstance(parts, list | tuple):
        return type(parts)(map(_unpacked, parts))
    return torch.from_numpy(np.require(parts, requirements="W")) if isinstance(parts, np.ndarray) else parts


def _draw_and_solve(draw: Any, solve: Any, argument: Any) -> Any:
    with one_thread:
        return solve(*draw(argument))


def _n_jobs_or_threads(n_jobs: int | None, n_threads: int) -> int:
    """What joblib makes of `n_jobs`, but all of torch's threads where nobody asked for a number."""
    effective = joblib.effective_n_jobs(n_jobs)
    return n_threads if n_jobs is None and effective == 1 else effective
