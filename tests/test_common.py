"""scikit-learn's own checks, with no failure expected."""

import inspect
import re
import subprocess
import sys

import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport, __version__
from sklearn_nsgf._data.frame import KINDS
from sklearn_nsgf.networks import MLP

SHARED = {"max_iter": 2, "hidden_layer_sizes": (8,)}
FLOWS = {"n_flows": 1, "flow_batch_size": 16}
COUPLINGS = {"n_couplings": 1, "coupling_batch_size": 16}
SMALL = {
    SinkhornFlowTransport: {**SHARED, **FLOWS},
    FlowMatchingTransport: {**SHARED, **COUPLINGS},
    NSGFPlusPlus: {**SHARED, **FLOWS, **COUPLINGS},
}


class SmallNetwork(MLP):
    def __init__(self, event_shape):
        super().__init__(*event_shape, (4,))


OPTIONS = {
    SinkhornFlowTransport: [
        {},
        {"blur": 0.2},
        {"blur": (0.5, 0.1), "step_size": 0.5},
        {"n_steps": 2, "step_size": (0.5, 1.0), "solver": "rk4"},
        {"solver": "midpoint"},
        {"solver": "heun"},
        {"early_stopping": False},
        {"early_stopping": True, "validation_fraction": 0.3},
        {"standardize": False},
        {"network": SmallNetwork},
        {"n_jobs": 2, "verbose": 1, "device": "cpu"},
        {"n_flows": 3, "pool_size": 1},
        *({"frame": kind} for kind in KINDS),
        {"categorical_features": [0], "frame": "quantile"},
        {"categorical_features": [0]},
    ],
    FlowMatchingTransport: [
        {},
        {"coupling": "independent", "n_couplings": 3, "pool_size": 1},
        {"coupling": "sinkhorn", "blur": 0.5},
        {"frame": "quantile"},
    ],
    NSGFPlusPlus: [
        {},
        {"transition": "predicted", "n_sinkhorn_steps": 5, "n_flow_steps": 3},
        {"coupling": "sinkhorn", "early_stopping": False},
        {"frame": "quantile"},
    ],
}


def excepted(est):
    """It tests on rows whose numbers it did not fit: as categories they are unknown."""
    return {"check_fit_idempotent": "unknown categories"} if est.categorical_features == [0] else {}


@parametrize_with_checks(
    [est(**{**SMALL[est], **options}) for est, all_options in OPTIONS.items() for options in all_options],
    expected_failed_checks=excepted,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([SinkhornFlowTransport(), FlowMatchingTransport(), NSGFPlusPlus()])
def test_scikit_learn_checks_with_the_defaults(estimator, check):
    check(estimator)


def parameters_in_docs(est):
    doc = inspect.cleandoc(est.__doc__)
    section = doc.split("Parameters\n----------\n")[1].split("Attributes\n----------\n")[0]
    parts = re.split(r"^(\w+) : .*$", section, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("est", SMALL)
def test_docstrings_are_aligned(est):
    lines = inspect.getdoc(est).splitlines()
    assert {"Parameters", "Attributes", "See Also", "References", "Examples"} <= set(lines)
    named = [line for line in lines if re.match(r"\s*\w+ : ", line)]
    assert not [line for line in named if line.startswith(" ")]


@pytest.mark.parametrize("est", SMALL)
def test_the_parameters_are_those_in_the_docs(est):
    assert list(parameters_in_docs(est)) == list(inspect.signature(est).parameters)


def test_shared_parameters_are_described_alike():
    """But for what depends on the number of networks, and on what a minibatch is."""
    different = {"max_iter", "network", "solver", "n_jobs", "blur", "pool_size"}
    documented = [parameters_in_docs(est) for est in SMALL]
    shared = set.intersection(*map(set, documented)) - different
    assert len(shared) > 12
    for name in shared:
        assert len({each[name] for each in documented}) == 1, name


def test_the_package_describes_itself_for_bug_reports():
    command = [sys.executable, "-m", "sklearn_nsgf"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    lines = dict(map(str.strip, line.split(":", 1)) for line in run.stdout.splitlines())
    assert lines["sklearn-nsgf"] == __version__
    assert lines["torch"] == torch.__version__
    assert int(lines["torch threads"]) >= 1
