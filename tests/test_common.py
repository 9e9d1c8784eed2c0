"""scikit-learn's own checks, with no failure expected."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.networks import MLP

SMALL = {"max_iter": 2, "n_flows": 1, "flow_batch_size": 16, "hidden_layer_sizes": (8,)}


class SmallNetwork(MLP):
    def __init__(self, n_features):
        super().__init__(n_features, (4,))


OPTIONS = [
    {},
    {"blur": 0.2, "scaling": 0.8},
    {"blur": (0.5, 0.1), "step_size": 0.5},
    {"n_steps": 2, "step_size": (0.5, 1.0), "solver": "rk4"},
    {"solver": "midpoint"},
    {"solver": "heun"},
    {"early_stopping": False},
    {"early_stopping": True, "validation_fraction": 0.3},
    {"standardize": False},
    {"network": SmallNetwork},
    {"n_jobs": 2, "verbose": 1, "device": "cpu"},
]


@parametrize_with_checks([SinkhornFlowTransport(**SMALL, **options) for options in OPTIONS])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([SinkhornFlowTransport()])
def test_scikit_learn_checks_with_the_defaults(estimator, check):
    check(estimator)
