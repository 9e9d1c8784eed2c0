"""Memory for the large temporaries of problems, which a thread may keep for the next one."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

# Bytes of memory, at most, that a thread keeps between two flows.
_LARGEST_KEPT = 2**25


class Memory:
    """Room for the large temporaries of one problem after the other.

    A step of a flow makes a dozen of them; fresh memory from the system would cost as much time as the
    sums in it.
    """

    def __init__(self) -> None:
        self._rooms: dict[Hashable, Tensor] = {}
        self._parts: dict[str, Memory] = {}

    def part(self, name: str) -> Memory:
        """Memory for problems whose temporaries must outlive those of others."""
        return self._parts.setdefault(name, Memory())

    def room(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """The same tensor at every call with that name, shape, dtype and device, whatever it holds."""
        key = name, tuple(shape), like.dtype, like.device
        if key not in self._rooms:
            self._rooms[key] = like.new_empty(key[1])
        return self._rooms[key]

    def matrix(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Room for a matrix of a row for each point of `x` and a column for each of `y`."""
        return self.room(name, (*x.shape[:-1], y.shape[-2]), x)

    def n_bytes(self) -> int:
        parts = sum(part.n_bytes() for part in self._parts.values())
        return parts + sum(room.nbytes for room in self._rooms.values())


class _ThreadMemory(threading.local):
    """What one thread keeps for its next flow, if that is of the same kind."""

    kind: Hashable = None
    memory: Memory | None = None


_thread = _ThreadMemory()


@contextmanager
def kept_memory(x: Tensor, y: Tensor) -> Iterator[Memory]:
    """Memory that the thread keeps, if it is small, for the next flow of such clouds.

    Torch does so itself for other devices than the CPU.
    """
    kind = x.shape, y.shape, x.dtype, y.dtype, x.device, y.device
    memory = _thread.memory if kind == _thread.kind else None
    memory = memory or Memory()
    _thread.kind, _thread.memory = kind, None
    yield memory
    if x.device.type == "cpu" and memory.n_bytes() <= _LARGEST_KEPT:
        _thread.memory = memory
