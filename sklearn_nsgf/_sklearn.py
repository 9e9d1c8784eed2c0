"""The one door to scikit-learn names that are private or differ between versions."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import _safe_indexing
from sklearn.utils import check_array as _check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._set_output import _get_output_config, _wrap_data_with_container
from sklearn.utils.metaestimators import available_if as _available_if
from sklearn.utils.validation import _check_method_params, _get_feature_names

Method = TypeVar("Method", bound=Callable[..., Any])


class Silence:
    """Stands for the context of a task where nobody listens."""

    def subcontext(self, **options):
        return self

    def call_on_fit_task_begin(self, **arguments):
        return self

    def call_on_fit_task_end(self, **arguments):
        return False


try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:
        def _init_callback_context(self, **options):
            return Silence()

    def _with_callbacks(method):
        return method


__all__ = [
    "CallbackSupportMixin",
    "Interval",
    "Silence",
    "StrOptions",
    "available_if",
    "check_array",
    "check_method_params",
    "fit_context",
    "get_feature_names",
    "in_container",
    "output_container",
    "safe_indexing",
    "with_callbacks",
]

check_method_params = _check_method_params
get_feature_names = _get_feature_names
safe_indexing = _safe_indexing


# scikit-learn's decorators have no types and hide from type checkers what they decorate.


def available_if(check: Callable[[Any], bool]) -> Callable[[Method], Method]:
    return _available_if(check)


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Method], Method]:
    return _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)


def with_callbacks(method: Method) -> Method:
    return _with_callbacks(method)


def check_array(X, name: str, **options):
    """scikit-learn's, with errors that name the array, whatever they are about."""
    try:
        # Whether numbers are finite is found out from their sum.
        with np.errstate(over="ignore", invalid="ignore"):
            return _check_array(X, input_name=name, **options)
    except (TypeError, ValueError) as error:
        if re.search(rf"\b{re.escape(name)}(?!\w)", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        if "minimum of" in str(error):
            raise kind(f"{error}\nIt is about {name}, which is too small: pass more of it.") from error
        raise kind(
            f"{error}\nIt is about {name}, a {type(X).__name__}; expected an array, a DataFrame, or a list "
            "of rows of one length."
        ) from error


def output_container(estimator) -> str:
    """What `set_output` asks `transform` for: "default", "pandas" or "polars"."""
    return _get_output_config("transform", estimator)["dense"]


def in_container(estimator, X, original=None):
    """Rows as `set_output` asks for them, with the index of the rows that they come from."""
    return _wrap_data_with_container("transform", X, original, estimator)
