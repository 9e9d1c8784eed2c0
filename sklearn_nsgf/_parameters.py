"""Constraints of the parameters that several estimators have, and defaults that are computed."""

from __future__ import annotations

import copy
import math
import os
from numbers import Integral, Real

from torch import nn

from sklearn_nsgf._data.frame import KINDS
from sklearn_nsgf._learning.processes import processes
from sklearn_nsgf._learning.training import Settings
from sklearn_nsgf._sklearn import Interval, StrOptions
from sklearn_nsgf.flow._coupling import COUPLINGS
from sklearn_nsgf.flow._ode import SOLVERS

# Learning rates of the perceptron and of other networks.
PERCEPTRON_RATE, RATE = 0.005, 0.001

# Widths of the perceptron with few features and with more. Measured with 2, 10, 30 and 64: up to 30 the
# narrow one is as good, and a fit takes two thirds of the time.
NARROW, WIDE, FEW_FEATURES, N_LAYERS = 128, 256, 32, 3

COUNT = Interval(Integral, 1, None, closed="left")
POSITIVE = Interval(Real, 0, None, closed="neither")

SHARED = {
    "solver": [StrOptions(set(SOLVERS))],
    "network": [None, nn.Module, callable],
    "hidden_layer_sizes": [StrOptions({"auto"}), "array-like"],
    "learning_rate": [StrOptions({"auto"}), POSITIVE],
    "batch_size": [COUNT],
    "max_iter": [Interval(Integral, 0, None, closed="left")],
    "early_stopping": ["boolean", StrOptions({"auto"})],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [COUNT],
    "label_mode": [StrOptions({"ignore", "condition", "couple"})],
    "frame": [StrOptions({"auto", *KINDS})],
    "categorical_features": [None, StrOptions({"from_dtype"}), "array-like"],
    "standardize": ["boolean"],
    "image_shape": [None, "array-like"],
    "channel_axis": [None, Integral],
    "pool_size": [None, COUNT],
    "warm_start": ["boolean"],
    "checkpoint": [None, str, os.PathLike],
    "compile": ["boolean"],
    "device": [str],
    "n_jobs": [None, Integral],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}
SINKHORN = {
    "blur": [POSITIVE, "array-like"],
    "step_size": [StrOptions({"harmonic"}), Interval(Real, 0, 1, closed="right"), "array-like"],
    "n_flows": [COUNT],
    "flow_batch_size": [Interval(Integral, 2, None, closed="left")],
    "sinkhorn_tol": [POSITIVE],
}
COUPLING = {
    "coupling": [StrOptions(set(COUPLINGS))],
    "coupling_batch_size": [COUNT],
    "n_couplings": [COUNT],
}


def training_settings(estimator, event_shape: tuple[int, ...]) -> Settings:
    """What the parameters of an estimator say about training."""
    rate = estimator.learning_rate
    if rate == "auto":
        rate = PERCEPTRON_RATE if estimator.network is None and len(event_shape) == 1 else RATE
    return Settings(
        max_iter=estimator.max_iter,
        batch_size=estimator.batch_size,
        learning_rate=rate,
        n_iter_no_change=estimator.n_iter_no_change,
        compile=estimator.compile,
        pool_size=estimator.pool_size,
        verbose=int(estimator.verbose) if processes().is_first else 0,
    )


def architecture(estimator, event_shape: tuple[int, ...], n_classes: int) -> dict:
    """Arguments of `make_network` for the velocity networks of an estimator."""
    sizes = estimator.hidden_layer_sizes
    if isinstance(sizes, str):
        sizes = N_LAYERS * [NARROW if math.prod(event_shape) <= FEW_FEATURES else WIDE]
    return {
        "event_shape": event_shape,
        # A module that is changed later must not change what a fit was made with.
        "network": copy.deepcopy(estimator.network),
        "hidden_layer_sizes": tuple(sizes),
        "n_classes": n_classes,
    }
