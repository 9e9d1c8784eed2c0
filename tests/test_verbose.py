"""What `verbose` prints and logs."""

import logging

import numpy as np
import pytest
from clouds import two_clouds

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport

SMALL = {"max_iter": 60, "batch_size": 16, "hidden_layer_sizes": (8,), "early_stopping": False}
FLOWS = {"n_flows": 2, "flow_batch_size": 16}
COUPLINGS = {"n_couplings": 2, "coupling_batch_size": 16}
ESTIMATORS = {
    "sinkhorn": SinkhornFlowTransport(**SMALL, **FLOWS),
    "matching": FlowMatchingTransport(**SMALL, **COUPLINGS),
    "direct": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS),
    "predicted": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, transition="predicted"),
}
# How each line begins.
LINES = {
    "sinkhorn": ["simulated 2 Sinkhorn flows", "SinkhornFlowTransport trained 60 iterations"],
    "matching": ["FlowMatchingTransport trained 60 iterations"],
    "direct": ["simulated 2 Sinkhorn flows", "NSGFPlusPlus trained 60 iterations"],
    "predicted": [
        "simulated 2 Sinkhorn flows",
        "NSGFPlusPlus trained 15 iterations",
        "trained the time predictor",
        "NSGFPlusPlus trained 45 iterations",
    ],
}


@pytest.fixture(params=ESTIMATORS)
def name(request):
    return request.param


def beginnings(lines):
    return [line.partition(",")[0] for line in lines]


def test_nothing_is_printed_unless_asked_for(name, capsys):
    ESTIMATORS[name].set_params(verbose=0).fit(*two_clouds(60, 50))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_line_is_printed_for_each_phase(name, capsys, caplog):
    ESTIMATORS[name].set_params(verbose=1).fit(*two_clouds(60, 50))
    captured = capsys.readouterr()
    assert beginnings(captured.out.splitlines()) == LINES[name]
    assert captured.err == ""
    assert caplog.messages == []


def test_the_lines_are_logged_where_logging_shows_them(name, capsys, caplog):
    with caplog.at_level(logging.INFO, "sklearn_nsgf"):
        ESTIMATORS[name].set_params(verbose=1).fit(*two_clouds(60, 50))
    assert beginnings(caplog.messages) == LINES[name]
    assert capsys.readouterr().out == ""


def test_early_stopping_tells_what_is_kept(capsys):
    est = SinkhornFlowTransport(**{**SMALL, "early_stopping": True}, **FLOWS, verbose=1, random_state=0)
    est.fit(*two_clouds(510, 500))
    *_, last = capsys.readouterr().out.splitlines()
    assert last == f"of these it keeps {est.model_.n_kept}, by what held-out rows say"


@pytest.mark.parametrize(
    ("way", "line"), [(0.0, "SinkhornFlowTransport keeps no network, "), (20.0, "it keeps them, ")]
)
def test_folds_tell_what_is_kept(way, line, capsys):
    """Two far halves from one cloud are no linear map."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 60, 2))
    target[::2] += way
    est = SinkhornFlowTransport(frame="linear", n_flows=1, max_iter=100, verbose=1, random_state=0)
    est.fit(source, target)
    *_, last = capsys.readouterr().out.splitlines()
    assert last == line + "by what 5 folds of held-out rows say"
    assert est.model_.n_kept == (0 if way == 0 else 100)


def test_verbose_2_tells_of_every_evaluation(capsys):
    ESTIMATORS["matching"].set_params(verbose=2).fit(*two_clouds(60, 50))
    *lines, last = capsys.readouterr().out.splitlines()
    assert beginnings(lines) == [f"iteration {step} of 60" for step in range(2, 61, 2)]
    assert beginnings([last]) == LINES["matching"]


def test_a_handler_that_wants_only_warnings_does_not_silence_it(capsys, caplog):
    with caplog.at_level(logging.WARNING, "sklearn_nsgf"):
        ESTIMATORS["matching"].set_params(verbose=1).fit(*two_clouds(60, 50))
    assert beginnings(capsys.readouterr().out.splitlines()) == LINES["matching"]


def test_without_a_handler_the_lines_are_printed_whatever_the_level(capsys, monkeypatch):
    logger = logging.getLogger("sklearn_nsgf")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.INFO)
    ESTIMATORS["matching"].set_params(verbose=1).fit(*two_clouds(60, 50))
    assert beginnings(capsys.readouterr().out.splitlines()) == LINES["matching"]
