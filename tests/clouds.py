"""Samples that several test modules use."""

import numpy as np

from sklearn_nsgf._data.layout import Layout
from sklearn_nsgf._data.rows import SampleRows


def two_clouds(n_source=600, n_target=500, seed=0):
    """A correlated Gaussian and two separate clouds."""
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(n_source, 2)) @ [[1.0, 0.5], [0.0, 1.0]]
    target = rng.normal([8, 0], 0.5, size=(n_target, 2)) + [0, 3] * rng.choice([-1, 1], (n_target, 1))
    return source, target


def rows_of(X):
    """An array as a sample of a fit."""
    return SampleRows(X, Layout(X.shape[1:]))
