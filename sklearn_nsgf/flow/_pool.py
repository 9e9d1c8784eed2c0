"""A pool of paths, from which training draws points and velocities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_nsgf.flow._blocks import BlockMaker
from sklearn_nsgf.flow._path import PathSample, straight_path

# Blocks that are made before the first draw.
_N_FIRST = 2
# A pool that has room for no more blocks renews an eighth of them at a time.
_RENEWED_SHARE = 8
# Problems that may fail before no more blocks are made: each takes a second or more. Few flows were better
# than flows of fewer rounds, measured on heavy tails.
_MOST_FAILED = 15
# Bytes that a pool takes if nothing else is said.
_LARGEST_POOL = 2**30
# Bytes of the blocks that are made in one go, if a single group does not take more.
_LARGEST_PART = 2**27


class TrajectoryPool:
    """Paths that are made in blocks, some of them while training draws from the others.

    Between two nodes a path is straight: it has a velocity at every time and not only at the nodes. With
    harmonic steps that velocity hardly changes from one segment to the next.

    The pool starts with two blocks and makes the others while it is drawn from, no later than evenly over the
    expected draws. It doubles until it is full: draws that end early leave most blocks unmade, and half of
    all expected draws see every block that there is room for. From then on new blocks take the place of the
    oldest, a few at a time. None is made that no draw could see. Every block has a seed of its own, and the
    same blocks are always made together: they are the same, bit by bit, however many are asked for at a time,
    unless their source changes meanwhile.
    If blocks do not differ, one is made. If too many of their problems cannot be solved, draws make no more.

    Parameters
    ----------
    maker : BlockMaker
        Makes the blocks. The nodes of their paths lie at equal distances in time, from 0 to `end`.
    n_blocks : int
        Number of blocks in all, if there are as many draws as expected.
    seed : int
    n_held : int, default=None
        Number of blocks held at a time; by default as many as 1 GiB can hold.
    held_share : float, default=1.0
        Largest part of all blocks that is held at a time: less for paths that grow old.
    n_draws : int, default=0
        Expected number of calls of `sample`; with 0 the first one fills the pool, and no block is replaced.
    dtype : torch.dtype, default=torch.float32
        In which the paths are kept. float16 halves the memory and moves points by 0.05 % of
        their distance from the origin.
    labels : Tensor of shape (n_paths,), optional
        Index of the class of each path of a block, the same for all blocks.
    end : float, default=1.0
        Time at which the paths end.
    part : (int, int), default=(0, 1)
        With (k, n) the pool has every n-th of the blocks, from the k-th on: a share for each of n processes.

    Attributes
    ----------
    n_held : int
        Number of blocks held at a time.
    n_made : int
        Number of blocks made so far.
    is_cut : bool
        Whether blocks were due and not made, since too many of their problems cannot be solved.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_nsgf.flow import ArraySampler, Couplings, TrajectoryPool
    >>> source, target = ArraySampler(np.zeros((1, 1))), ArraySampler(np.full((1, 1), 3.0))
    >>> lines = Couplings(source, target, coupling="exact", n_points=1)
    >>> pool = TrajectoryPool(lines, n_blocks=4, seed=0)
    >>> pool.sample(2, torch.Generator().manual_seed(0)).v_t
    tensor([[3.],
            [3.]])
    """

    maker: BlockMaker
    n_draws: int
    dtype: torch.dtype
    labels: Tensor | None
    seeds: list[np.random.SeedSequence]
    n_held: int
    n_made: int
    n_drawn: int
    is_cut: bool
    blocks: Tensor

    def __init__(
        self,
        maker: BlockMaker,
        *,
        n_blocks: int,
        seed: int,
        n_held: int | None = None,
        held_share: float = 1.0,
        n_draws: int = 0,
        dtype: torch.dtype = torch.float32,
        labels: Tensor | None = None,
        end: float = 1.0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if n_blocks < 1 or (n_held is not None and n_held < 1):
            raise ValueError(f"n_blocks={n_blocks}, n_held={n_held}: expected at least one block.")
        self.maker, self.n_draws, self.dtype, self.labels = maker, n_draws, dtype, labels
        self.end = end
        seeds = np.random.SeedSequence(seed).spawn(n_blocks if maker.differs else 1)
        # At least one: with more processes than blocks some share theirs.
        self.seeds = seeds[part[0] % len(seeds) :: part[1]]
        most_held = max(1, _LARGEST_POOL // (math.prod(maker.block_shape) * dtype.itemsize))
        self.n_held = min(n_held or most_held, math.ceil(held_share * len(self.seeds)))
        self.n_made = self.n_drawn = 0
        self.is_cut = False
        self.blocks = torch.empty(0)

    def fill(self) -> None:
        """Make as many blocks as there is room for, unless they are there."""
        self._make_until(self.n_held)

    @property
    def paths(self) -> Tensor:
        """The paths of a full pool, of shape (n_paths, n_nodes, n_features)."""
        self.fill()
        return self.blocks.flatten(0, 1)

    def __len__(self) -> int:
        return len(self.paths)

    def sample(self, n_samples: int, generator: torch.Generator, *, t_end: float | None = None) -> PathSample:
        """Draw points at uniform times up to `t_end` on random paths, with the paths' velocities there."""
        if self.n_made and not len(self.blocks):
            self._make_again()
        self._make_due()
        self.n_drawn += 1
        paths, labels = self.blocks[: self.n_made].flatten(0, 1), self.labels
        n_paths, n_segments = len(paths), paths.shape[1] - 1
        path = torch.randint(n_paths, (n_samples,), generator=generator, device=paths.device)
        n_drawn = n_segments * (1.0 if t_end is None else t_end / self.end)
        place = n_drawn * torch.rand(n_samples, generator=generator, device=paths.device)
        segment = place.long().clamp(max=n_segments - 1)
        batch = straight_path(
            paths[path, segment].float(),
            paths[path, segment + 1].float(),
            self.end * segment / n_segments,
            self.end * (segment + 1) / n_segments,
            place - segment,
        )
        return batch if labels is None else batch._replace(labels=labels[path % len(labels)])

    def state_dict(self, *, with_blocks: bool = False) -> dict[str, Any]:
        """What another pool of the same arguments needs to go on, and the blocks if their source changes."""
        state = {
            "n_made": self.n_made,
            "n_drawn": self.n_drawn,
            "is_cut": self.is_cut,
            "maker": self.maker.state_dict(),
        }
        return {**state, "blocks": self.blocks} if with_blocks else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from that state. Blocks that it lacks are made again when they are drawn from."""
        self.n_made, self.n_drawn, self.is_cut = state["n_made"], state["n_drawn"], state["is_cut"]
        self.maker.load_state_dict(state["maker"])
        if "blocks" in state:
            self.blocks = state["blocks"].to(self.maker.device)

    def _make_again(self) -> None:
        n_made, maker_state = self.n_made, self.maker.state_dict()
        try:
            self.n_made = 0
            self._make_until(n_made, first=n_made - self.n_held)
        finally:
            self.n_made = n_made
            self.maker.load_state_dict(maker_state)

    @property
    def _n_group(self) -> int:
        """Number of blocks made together: no more than there is room for, or some would never be seen."""
        return min(self.maker.n_at_once, self.n_held)

    def _make_due(self) -> None:
        """Make the blocks that are due at this draw, and some ahead of time if there are any."""
        if self.n_draws == 0:
            return self.fill()
        n_first = min(_N_FIRST, self.n_held)
        n_later = len(self.seeds) - n_first
        n_due = n_first + math.ceil(n_later * min(1.0, self.n_drawn / self.n_draws))
        if n_due <= self.n_made:
            return
        if self.maker.n_failed >= _MOST_FAILED:
            self.is_cut = True
            return
        if self.n_made < self.n_held:
            self._make_until(min(max(n_due, 2 * self.n_made), self.n_held))
        else:
            n_due = max(n_due, self.n_made + self.n_held // _RENEWED_SHARE)
            n_groups = self.n_held // self._n_group
            self._make_until(min(n_due, self.n_made + n_groups * self._n_group, len(self.seeds)))

    def _make_until(self, n_blocks: int, first: int = 0) -> None:
        """Make the next blocks, and with them the others of their group, in the place of the oldest.

        Of those before `first` only as many as come with others.
        """
        while self.n_made < n_blocks:
            numbers = self._next_numbers(n_blocks)
            if numbers[-1] >= first:
                new = self.maker(self.seeds[numbers[0] : numbers[-1] + 1])
                if not len(self.blocks):
                    self.blocks = new.new_empty(self.n_held, *new.shape[1:], dtype=self.dtype)
                self.blocks[numbers % self.n_held] = new.to(self.dtype)
            self.n_made += len(numbers)

    def _next_numbers(self, n_blocks: int) -> np.ndarray:
        """Numbers of the blocks to make next on the way to so many."""
        if self.n_made == 0:
            # Alone: what is wrong with it need not wait for a whole group.
            return np.arange(1)
        n_part = max(1, _LARGEST_PART // (4 * math.prod(self.maker.block_shape) * self._n_group))
        n_part = min(n_part, self.n_held // self._n_group)
        n_groups = min(math.ceil((n_blocks - self.n_made) / self._n_group), n_part)
        # A group ends where the pool is full: nothing has been drawn from it yet.
        end = self.n_held if self.n_made < self.n_held else len(self.seeds)
        return np.arange(self.n_made, min(self.n_made + n_groups * self._n_group, end))
