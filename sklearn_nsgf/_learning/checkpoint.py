"""The file that keeps a fit while it runs, and lets a later one go on from there."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

from sklearn_nsgf._data.check import FlowData
from sklearn_nsgf._data.rows import Sample
from sklearn_nsgf._model.model import FlowModel
from sklearn_nsgf._version import __version__
from sklearn_nsgf._warn import warn_caller

# Seconds between two states that are written.
INTERVAL = 5.0
# Rows of each sample that tell it from another one.
N_TOLD_ROWS = 1024
# Parameters that change nothing that is learnt. `warm_start` is seen by the fit before.
WITHOUT_EFFECT = {"checkpoint", "n_jobs", "verbose", "warm_start"}

# Tensors, numbers and strings, in lists and dicts: nothing that a file could run.
State = dict[str, Any]


class Checkpoint:
    """States of the trainings of a fit, in the file of another fit that was the same if there is one.

    Parameters
    ----------
    path : str or path-like
    fit : dict of str to str
        What tells the fit from others, as `describe_fit` returns it.
    random_state : int, RandomState instance or None

    Attributes
    ----------
    seed : int
        `random_state` if it is an int; else that of the file, or one that is drawn here.

    Raises
    ------
    ValueError
        If the file is of another fit, or not a checkpoint.
    FileNotFoundError
        If there is no such folder.
    IsADirectoryError
        If there is a folder in its place.
    """

    def __init__(self, path: str | os.PathLike[str], fit: dict[str, str], random_state: Any) -> None:
        self.path, self.fit = Path(path), fit
        self.unfinished = self.path.with_name(self.path.name + ".part")
        # Of the trainings begun, in their order; those behind `place` are of the file and will be begun.
        self.states: list[State] = []
        self.place = -1
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"checkpoint={str(self.path)!r}: there is no folder {str(self.path.parent)!r}. Make it first."
            )
        if self.path.is_dir():
            raise IsADirectoryError(
                f"checkpoint={str(self.path)!r} is a folder: expected a file, such as "
                f"{str(self.path / 'fit.checkpoint')!r}."
            )
        if self.path.exists():
            kept = self._read()
            self.seed, self.states = kept["seed"], kept["trainings"]
        elif isinstance(random_state, Integral):
            self.seed = int(random_state)
        else:
            self.seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
        self.last_written = time.monotonic()

    def begin_training(self) -> State | None:
        """Begin the next training of the fit, and return the state to go on from."""
        self.place += 1
        return self.states[self.place] if self.place < len(self.states) else None

    def keep(self, make_state: Callable[[], State]) -> None:
        """Write the state of the training, unless the last one was written a moment ago."""
        if time.monotonic() - self.last_written >= INTERVAL:
            self.states[self.place :] = [make_state()]
            self._write({"fit": self.fit, "seed": self.seed, "trainings": self.states})
            self.last_written = time.monotonic()

    def end_training(self, state: State) -> None:
        """Note what the training has led to, which is written with the next state."""
        self.states[self.place :] = [state]

    def remove(self) -> None:
        """Remove the file of a fit that is done."""
        for path in (self.path, self.unfinished):
            path.unlink(missing_ok=True)

    def _read(self) -> State:
        advice = "To fit afresh, remove the file or name another one."
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True)
            fit = kept["fit"]
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"The file {str(self.path)!r} is not a checkpoint of a fit. {advice}") from error
        others = [name for name in {**fit, **self.fit} if fit.get(name) != self.fit.get(name)]
        if others:
            raise ValueError(
                f"The file {str(self.path)!r} is the checkpoint of another fit, which differs in "
                f"{', '.join(others)}. To go on with that one, fit with what it was given. {advice}"
            )
        return kept

    def _write(self, content: State) -> None:
        # In memory first: torch does not survive a full disk.
        file = io.BytesIO()
        torch.save(content, file)
        try:
            with open(self.unfinished, "wb") as unfinished:
                unfinished.write(file.getbuffer())
                unfinished.flush()
                os.fsync(unfinished.fileno())
            os.replace(self.unfinished, self.path)
        except OSError as error:
            warn_caller(
                f"The checkpoint was not written: {error}. The fit goes on, and the file {str(self.path)!r} "
                "stays as it was.",
                UserWarning,
            )
        finally:
            # There is one if writing failed or was interrupted.
            self.unfinished.unlink(missing_ok=True)


def describe_fit(
    estimator: Any, data: FlowData, before: FlowModel | None, device: torch.device, *, in_parts: bool
) -> dict[str, str]:
    """What must be the same for two fits to be the same, by name."""
    parameters = estimator.get_params(deep=False).items()
    return {
        "the version of sklearn-nsgf": __version__,
        "the estimator": type(estimator).__name__,
        "the method": "partial_fit" if in_parts else "fit",
        "the kind of device": device.type,
        **{name: _describe(value) for name, value in parameters if name not in WITHOUT_EFFECT},
        "the source sample": _digest(_parts_of_sample(data.source)),
        "the target sample": _digest(_parts_of_sample(data.target)),
        "the fit before": "none" if before is None else _digest(_parts_of_model(before)),
    }


def _describe(value: Any) -> str:
    if isinstance(value, nn.Module):
        return f"{value}, {_digest(_parts_of_network(value))}"
    if callable(value):
        return (
            f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else str(type(value))
        )
    if isinstance(value, np.random.RandomState):
        return "RandomState"
    return repr(np.asarray(value).tolist())


def _digest(parts: Iterator[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        array = np.ascontiguousarray(part)
        digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def _parts_of_sample(sample: Sample | None) -> Iterator[Any]:
    if sample is None:
        return
    n_rows = sample.n_rows
    yield n_rows
    yield sample.rows[np.unique(np.linspace(0, n_rows - 1, N_TOLD_ROWS).astype(int))]
    if sample.codes is not None:
        yield sample.codes


def _parts_of_model(model: FlowModel) -> Iterator[Any]:
    for leg in model.legs:
        if leg is not None:
            yield leg.curves.n_iter
            yield from _parts_of_network(leg.network)


def _parts_of_network(network: nn.Module) -> Iterator[Any]:
    return (tensor.numpy(force=True) for tensor in network.state_dict().values())
