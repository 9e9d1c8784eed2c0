"""Devices, their memory, seeds and threads of torch, without touching its global state."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from sklearn_nsgf._warn import warn_caller

# torch.OutOfMemoryError, which torch 2.4 has in this place only.
OutOfMemoryError = torch.cuda.OutOfMemoryError

Answer = TypeVar("Answer")


def resolve_device(device: str) -> torch.device:
    """Return the torch device that `device` names, or say why it cannot be used.

    Parameters
    ----------
    device : str
        "auto" takes CUDA where there is a CUDA GPU and the CPU otherwise; anything else is
        a torch device string such as "cpu", "cuda", "cuda:1" or "mps".

    Raises
    ------
    ValueError
        If the device is unknown or not present on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is not a torch device; use 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'."
        ) from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (resolved.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(resolved.type, False):
        raise ValueError(
            f"device={device!r} is not present on this machine; set device='auto' or 'cpu' "
            "(est.set_params(device='cpu') for an estimator fitted elsewhere)."
        )
    return resolved


def inference_dtype(dtype: np.dtype, device: torch.device) -> torch.dtype:
    """Torch dtype in which answers for arrays of `dtype` are computed: MPS has no float64."""
    if dtype == np.float64 and device.type != "mps":
        return torch.float64
    return torch.float32


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Add advice to the error that a GPU's memory is full, unless there is some from further inside."""
    try:
        yield
    except OutOfMemoryError as error:
        if not getattr(error, "__notes__", None):
            error.add_note(advice)
        raise


class Chunks(Generic[Answer]):
    """Applies an action to chunk after chunk, and to smaller ones where a GPU's memory does not suffice.

    A chunk that does not fit is halved until it does, and larger ones are not tried again.

    Parameters
    ----------
    things : str
        What a chunk consists of, for the warning.
    advice : str
        What to do if not even one of them fits.
    """

    def __init__(self, things: str, advice: str) -> None:
        self.things = things
        self.advice = advice
        self.most: int | None = None

    def __call__(self, action: Callable[[slice], Answer], n_things: int, n_at_once: int) -> list[Answer]:
        """Return the answers for the chunks, each of `n_at_once` things at most."""
        answers: list[Answer] = []
        start, most_before = 0, self.most
        while start < n_things:
            n = min(n_things - start, n_at_once, self.most or n_at_once)
            try:
                with memory_advice(self.advice):
                    answers.append(action(slice(start, start + n)))
                start += n
            except OutOfMemoryError:
                if n == 1:
                    raise
                # What the action has allocated is free when the error is forgotten, in the next round.
                self.most = min(n // 2, self.most or n)
        if self.most != most_before:
            warn_caller(
                f"The GPU's memory holds only {self.most} {self.things} at a time, instead of {n_at_once}: "
                "this takes longer.",
                UserWarning,
            )
        return answers


def make_generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed)


_rng_lock = threading.RLock()


class RandomStream:
    """A seeded stream of random numbers of torch's global generators, drawn from in turns only.

    For code that draws from those whatever one does: parameter initialisation, dropout. Between turns they
    are as if nothing had been drawn, and the next turn goes on where the last one ended. One thread at a time
    has its turn.

    Parameters
    ----------
    seed : int
    is_used : bool, default=False
        Whether a turn may draw, although none has so far.
    """

    def __init__(self, seed: int, *, is_used: bool = False) -> None:
        self.seed, self.is_used = seed, is_used
        self.states: list[torch.Tensor] = []

    @staticmethod
    def generators() -> tuple[torch.Generator, ...]:
        """That of the CPU, and those of the GPUs as soon as the process uses one."""
        return torch.default_generator, *torch.cuda.default_generators

    def state_dict(self) -> dict[str, Any]:
        return {"states": self.states, "is_used": self.is_used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.states, self.is_used = state["states"], state["is_used"]

    @contextmanager
    def turn(self) -> Iterator[None]:
        with _rng_lock:
            generators = self.generators()
            outside = [generator.get_state() for generator in generators]
            try:
                for k, generator in enumerate(generators):
                    if k == len(self.states):
                        self.states.append(generator.manual_seed(self.seed).get_state())
                    generator.set_state(self.states[k])
                yield
                states = [generator.get_state() for generator in generators]
                self.is_used |= not all(map(torch.equal, states, self.states))
                self.states = states
            finally:
                for generator, state in zip(generators, outside, strict=True):
                    generator.set_state(state)


class _Setting(ContextDecorator):
    """A setting of torch inside blocks, which may overlap in several threads.

    The first block to begin notes what is set outside, and the last one to end restores it.
    """

    inside: Any
    outside: Any

    def __init__(self) -> None:
        self.lock, self.n_inside = threading.RLock(), 0

    def get(self) -> Any:
        raise NotImplementedError

    def set(self, value: Any) -> None:
        raise NotImplementedError

    def __enter__(self) -> None:
        with self.lock:
            if self.n_inside == 0:
                self.outside = self.get()
            self.n_inside += 1
            self.set(self.inside)

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.n_inside -= 1
            if self.n_inside == 0:
                self.set(self.outside)


class _ThreadBlocks(threading.local):
    """The blocks of one thread, and its number of threads outside."""

    n_inside, n_outside = 0, 1


class _OneThread(_Setting):
    """Lets torch use one thread: products differ in bits between thread counts.

    Torch keeps a number for every thread that has used it, and one that the others will start with.
    """

    inside = 1

    def __init__(self) -> None:
        super().__init__()
        self.own = _ThreadBlocks()

    def get(self) -> int:
        return torch.get_num_threads()

    def set(self, value: int) -> None:
        torch.set_num_threads(value)

    def __enter__(self) -> None:
        if self.own.n_inside == 0:
            self.own.n_outside = self.get()
        self.own.n_inside += 1
        super().__enter__()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self.own.n_inside -= 1
        if self.own.n_inside == 0:
            # A thread that starts during the block of another starts with 1.
            self.set(self.own.n_outside if self.own.n_outside > 1 else self.outside)


class _FullPrecision(_Setting):
    """Keeps products of float32 matrices from TensorFloat-32 and bfloat16.

    Costs are differences of large numbers. The precision is the same for all threads of the process.
    """

    backends: tuple[Any, ...] = (torch.backends.cuda, torch.backends.mkldnn)

    @property
    def inside(self) -> list[str]:
        return ["highest"] if len(self.outside) == 1 else ["ieee", "ieee"]

    def get(self) -> list[str]:
        if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
            return [backend.matmul.fp32_precision for backend in self.backends]
        return [torch.get_float32_matmul_precision()]

    def set(self, precision: list[str]) -> None:
        if len(precision) == 1:  # torch before 2.9
            return torch.set_float32_matmul_precision(precision[0])
        for backend, each in zip(self.backends, precision, strict=True):
            backend.matmul.fp32_precision = each


one_thread, full_precision = _OneThread(), _FullPrecision()

# The threads of torch are not there after a fork, and the new process would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))
