"""Devices, seeds and threads of torch, without touching its global state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ContextDecorator, contextmanager
from typing import Any

import numpy as np
import torch


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


def make_generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block and restore it afterwards.

    For code that draws from the global generator whatever one does: parameter initialisation.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside the block: products differ in bits between thread counts."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class _FullPrecision(ContextDecorator):
    """Keeps products of float32 matrices from TensorFloat-32 and bfloat16.

    Costs are differences of large numbers. The precision is the process's: the last thread to leave
    restores what was asked for.
    """

    backends: tuple[Any, ...] = (torch.backends.cuda, torch.backends.mkldnn)

    def __init__(self) -> None:
        self.lock, self.n_inside = threading.Lock(), 0
        self.asked_for: list[str] = []

    def get(self) -> list[str]:
        if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
            return [backend.matmul.fp32_precision for backend in self.backends]
        return [torch.get_float32_matmul_precision()]

    def set(self, precision: list[str]) -> None:
        if len(precision) == 1:  # torch before 2.9
            return torch.set_float32_matmul_precision(precision[0])
        for backend, each in zip(self.backends, precision, strict=True):
            backend.matmul.fp32_precision = each

    def __enter__(self) -> None:
        with self.lock:
            if self.n_inside == 0:
                self.asked_for = self.get()
                self.set(["highest"] if len(self.asked_for) == 1 else ["ieee", "ieee"])
            self.n_inside += 1

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.n_inside -= 1
            if self.n_inside == 0:
                self.set(self.asked_for)


full_precision = _FullPrecision()
