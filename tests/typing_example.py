"""What type checkers make of the public names: `make types` reads this file, and nothing runs it."""

from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.domains import DomainKFold, SourceOnly, split_domains, stack_domains
from sklearn_nsgf.flow import SinkhornPotentials, sinkhorn_potentials
from sklearn_nsgf.inspection import LossCurveDisplay, TrajectoryDisplay
from sklearn_nsgf.metrics import energy_distance, make_transport_scorer, sinkhorn_divergence
from sklearn_nsgf.networks import make_network


def estimators(X: NDArray[Any], y: NDArray[Any]) -> None:
    flow = SinkhornFlowTransport(blur=(0.1, 0.03), hidden_layer_sizes=(64, 64), random_state=0, verbose=1)
    assert_type(flow.fit(X, y), SinkhornFlowTransport)
    assert_type(flow.partial_fit([[0.0, 1.0]], y), SinkhornFlowTransport)
    assert_type(flow.velocity(X, 0.5), NDArray[Any])
    assert_type(flow.score(X, y), float)
    assert_type(flow.network_, nn.Module)
    assert_type(flow.loss_curve_, list[float])
    assert_type(flow.blur_, float | tuple[float, float])
    # An array, or a frame after `set_output(transform="pandas")`.
    flow.transform(X).mean(axis=0)
    flow.sample(5, labels="cat", random_state=np.random.RandomState(0)).to_csv("moved.csv")

    both = NSGFPlusPlus(transition="predicted", coupling="sinkhorn", frame="quantile", early_stopping="auto")
    assert_type(both.fit(X, y).transition_time(X), NDArray[Any])
    assert_type(both.sinkhorn_flow_, SinkhornFlowTransport)
    assert_type(both.straight_flow_, FlowMatchingTransport | None)
    FlowMatchingTransport(network=make_network, image_shape=(1, 8, 8), channel_axis=-1, checkpoint="fit")


def no_values_of_parameters() -> None:
    FlowMatchingTransport(solver="Euler")  # type: ignore[arg-type]
    NSGFPlusPlus(n_flows="many")  # type: ignore[arg-type]


def domains(X: NDArray[Any], y: NDArray[Any]) -> None:
    stacked, labels, sample_domain = stack_domains(X, y, [0] * len(X))
    assert_type(sample_domain, NDArray[np.int64])
    split_domains(stacked, sample_domain, labels)
    for train, _ in DomainKFold(3).split(stacked, sample_domain=sample_domain):
        assert_type(train, NDArray[np.intp])
    model = SourceOnly(object(), transport=SinkhornFlowTransport())
    assert_type(model.fit(stacked, labels, sample_domain=sample_domain), SourceOnly)
    assert_type(model.predict(X), NDArray[Any])


def functions_and_plots(flow: SinkhornFlowTransport, X: NDArray[Any], y: NDArray[Any]) -> None:
    assert_type(energy_distance(X, y) + sinkhorn_divergence(X, y, blur=0.1), float)
    assert_type(make_transport_scorer("wasserstein_distance", standardize=False)(flow, X, y), float)
    display = TrajectoryDisplay(flow.integrate(X, return_path=True), np.linspace(0, 1, 6), features=("a", 1))
    assert_type(display.plot(color="red"), TrajectoryDisplay)
    assert_type(LossCurveDisplay.from_estimator(flow), LossCurveDisplay)
    potentials = sinkhorn_potentials(torch.zeros(5, 2), torch.ones(6, 2), blur=0.1)
    assert_type(potentials, SinkhornPotentials)
