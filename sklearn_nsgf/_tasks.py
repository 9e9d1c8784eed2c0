"""What scikit-learn's callbacks are told about a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

Attributes = Callable[[], dict[str, Any]]


class FitTasks(NamedTuple):
    """The phases of a fit, as tasks below that of the fit itself.

    Attributes
    ----------
    estimator : BaseEstimator
        The one that the user sees.
    context : CallbackContext
        That of the whole fit.
    data : dict of str to callable
        What a callback can ask for: X, y and metadata.
    complete : callable
        Makes the fitted attributes of `estimator` from those of the phase that runs.
    """

    estimator: Any
    context: Any
    data: dict[str, Callable[[], Any]]
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict

    @property
    def heard(self) -> bool:
        """Whether there is any callback."""
        return bool(getattr(self.estimator, "_skl_callbacks", None))

    @contextmanager
    def phase(self, name: str, step_name: str, n_steps: int) -> Iterator[Callable[..., bool]]:
        """Begin a phase; yields a function that ends one step of it and says whether to stop."""
        context = self.context.subcontext(task_name=name, max_subtasks=n_steps)
        context.call_on_fit_task_begin(estimator=self.estimator, **self.data)
        steps: list[Any] = []

        def begin_step() -> None:
            step = context.subcontext(task_name=step_name)
            steps.append(step.call_on_fit_task_begin(estimator=self.estimator, **self.data))

        def end_step(attributes: Attributes | None = None, *, last: bool = False) -> bool:
            stop = steps[-1].call_on_fit_task_end(
                estimator=self.estimator,
                reconstruction_attributes=attributes and (lambda: self.complete(attributes())),
                **self.data,
            )
            if not (stop or last) and len(steps) < n_steps:
                begin_step()
            return stop

        begin_step()
        yield end_step
        context.call_on_fit_task_end(estimator=self.estimator, **self.data)
