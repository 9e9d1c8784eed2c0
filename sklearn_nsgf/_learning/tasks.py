"""What scikit-learn's callbacks are told about a fit."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from sklearn_nsgf._data.check import FlowData
from sklearn_nsgf._data.space import Space
from sklearn_nsgf._data.table import Table

# Rows of each sample that callbacks are given.
CALLBACK_ROWS = 1024


class FitTasks(NamedTuple):
    """The phases of a fit, as tasks below that of the fit itself.

    Attributes
    ----------
    estimator : BaseEstimator
    context : CallbackContext
        That of the whole fit.
    data : dict of str to callable
        What a callback can ask for: X, y and metadata.
    """

    estimator: Any
    context: Any
    data: dict[str, Callable[[], Any]]

    @contextmanager
    def phase(self, name: str, step_name: str, n_steps: int) -> Iterator[Callable[..., bool]]:
        """Begin a phase, and end it however the block ends.

        Yields a function that ends one step of it, is given a function that makes the model as it is by then,
        if there is one, and says whether to stop.
        """
        context = self.context.subcontext(task_name=name, max_subtasks=n_steps)
        context.call_on_fit_task_begin(estimator=self.estimator, **self.data)
        begun: list[Any] = []
        n_ended = 0

        def begin_step() -> None:
            step = context.subcontext(task_name=step_name)
            begun.append(step.call_on_fit_task_begin(estimator=self.estimator, **self.data))

        def end_step(model: Callable[[], Any] | None = None, *, last: bool = False) -> bool:
            nonlocal n_ended
            n_ended += 1
            stop = begun[-1].call_on_fit_task_end(
                estimator=self.estimator,
                reconstruction_attributes=model and (lambda: {"model_": model()}),
                **self.data,
            )
            if not (stop or last) and len(begun) < n_steps:
                begin_step()
            return stop

        begin_step()
        try:
            yield end_step
        finally:
            if n_ended < len(begun):
                begun[-1].call_on_fit_task_end(estimator=self.estimator, **self.data)
            context.call_on_fit_task_end(estimator=self.estimator, **self.data)


def callback_data(space: Space, data: FlowData) -> dict[str, Callable[[], Any]]:
    """A source sample and a target sample for callbacks, made when one of them asks."""
    make = functools.cache(functools.partial(_callback_samples, space, data))
    return {name: lambda name=name: make()[name] for name in ("X", "y", "metadata")}


def _callback_samples(space: Space, data: FlowData) -> dict[str, Any]:
    rng = np.random.RandomState(0)
    places = [
        np.sort(rng.permutation(sample.n_rows)[:CALLBACK_ROWS])
        for sample in (data.source or data.target, data.target)
    ]
    target = data.target.take(places[1])
    y = target.rows[:]
    if data.source is None:
        source_codes = data.target.codes
        seen = source_codes[places[0]] if space.classes.are_seen else None
        X = space.frame.decode(space.frame.draw_noise(len(places[0]), rng, seen), 0.0, y.dtype)
    else:
        X, source_codes = data.source.rows[places[0]], data.source.codes
    X, y = map(space.layout.to_samples, (X, y))
    if not space.classes.are_seen:
        y = _framed(y, space.table, 1.0) if space.table.is_needed else y
        return {"X": _framed(X, space.table, 0.0), "y": y, "metadata": None}
    codes = np.concatenate([source_codes[places[0]], target.codes])
    return {
        "X": _framed(np.concatenate([X, y]), space.table, 1.0),
        "y": space.classes.labels[codes],
        "metadata": {"sample_domain": np.repeat([1, -1], [len(X), len(y)])},
    }


def _framed(X: np.ndarray, table: Table, t: float):
    """With the names of the features, where there are any and pandas is there."""
    if table.is_needed:
        return table.to_frame(X, t, table.library)
    pandas = sys.modules.get("pandas")
    return (
        table.decode(X) if table.names is None or pandas is None else pandas.DataFrame(X, columns=table.names)
    )
