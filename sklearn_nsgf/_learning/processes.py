"""Training in several processes, which torchrun starts and torch.distributed joins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sklearn_nsgf._data.rows import Sample


class Processes(NamedTuple):
    """The processes that train together; one if torch.distributed is not initialised.

    Attributes
    ----------
    rank : int
        Of this one. The first one, 0, alone looks at held-out rows, logs and calls back.
    size : int
        How many there are.
    """

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, n_points: int) -> int:
        """Points of a batch that this process draws.

        Raises
        ------
        ValueError
            If there are fewer points than processes.
        """
        if n_points < self.size:
            raise ValueError(
                f"batch_size={n_points} is divided among {self.size} processes: expected at least one point "
                "for each. Raise batch_size, or start fewer."
            )
        return n_points // self.size + (self.rank < n_points % self.size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with the parameters of the first process, its gradients averaged over all."""
        if self.size == 1:
            return network
        return nn.parallel.DistributedDataParallel(network)

    def ask_first(self, action: Callable[..., Any]) -> Callable[..., Any]:
        """The action, done by the first process, whose answer or error all have."""
        if self.size == 1:
            return action

        def ask(*arguments: Any) -> Any:
            answers: list[Any] = [None, None]
            if self.is_first:
                try:
                    answers = [action(*arguments), None]
                except Exception as error:
                    answers = [None, error]
            torch.distributed.broadcast_object_list(answers)
            answer, error = answers
            if error is not None:
                raise error
            return answer

        return ask

    def mean(self, value: Tensor) -> Tensor:
        """Mean over all processes."""
        if self.size == 1:
            return value
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total / self.size

    def copy_first(self, network: nn.Module) -> None:
        """Give the network the state that it has in the first process."""
        if self.size > 1:
            for tensor in network.state_dict().values():
                torch.distributed.broadcast(tensor, 0)

    def check_equal(self, samples: Sequence[Sample | None]) -> None:
        """Raise an error, in all processes, unless the first and last rows are everywhere the same."""
        if self.size > 1:
            mine = [sample and (sample.n_rows, sample.rows[[0, -1]].tobytes()) for sample in samples]
            theirs = [None] * self.size
            torch.distributed.all_gather_object(theirs, mine)
            if any(each != mine for each in theirs):
                raise ValueError(
                    f"The {self.size} processes that train together have different samples: give all of "
                    "them the same rows in the same order. Batches are divided among them, samples are not."
                )


def processes() -> Processes:
    """Those that torch.distributed joins to this one."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return Processes(0, 1)
    return Processes(distributed.get_rank(), distributed.get_world_size())
