"""How well does a flow between the cells of two times predict the cells of the time in between?

    pip install torchcfm --no-deps
    python benchmarks/cells.py --data DIR --seeds 5

DIR/single_cell/emt.csv holds 3 133 cells with 10 features at four times of the epithelial-mesenchymal
transition, 577, 885, 788 and 883 cells. For t = 1 and t = 2 a flow is fitted from the cells of time t - 1 to
those of time t + 1. The cells of time t - 1, moved half of the way in 10 Euler steps, are compared with those
of time t.

Printed are the exact 1- and 2-Wasserstein distances and 1 000 times the energy distance, in the units of the
file, mean and spread over the seeds; the seconds of a fit; and the optimiser steps behind the network, 0
where early stopping kept none: the flow is then the linear map. The results, one value a line, go to
results/cells.csv.

Ours have their defaults, and once more ("forced") no early stopping, with a quarter of the default steps and
minibatches. I-CFM and OT-CFM are torchcfm's with minibatches of 256, in the same standardised units, with the
same network, optimiser and schedule; each time they get the seconds of our flow matching with exact pairs.

Without a network: the shift of the mean and the linear map (Ledoit-Wolf), half of the way each; exact
transport between the two samples (POT), half of the way to the barycentre of a cell's partners or to a
partner drawn from the plan; and the cells of time t - 1 or t + 1 as they are. The floor compares a random
half of the cells of time t with the other half. Samples half as large are further apart: for both Wasserstein
distances it is too high. The energy distance has no such bias, its floor is zero.
"""

import warnings
from collections import defaultdict

import numpy as np
import ot
import pandas as pd
from _harness import (
    FEW_FEATURES_LAYERS,
    ResultsFile,
    Torchcfm,
    force_network,
    known_maps,
    make_parser,
    print_row,
    spread,
    timed_fit,
)
from sklearn.base import clone

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.metrics import energy_distance, wasserstein_distance
from sklearn_nsgf.networks import make_network

OURS = {
    "NSGF": SinkhornFlowTransport(),
    "NSGF++": NSGFPlusPlus(),
    "FM exact": FlowMatchingTransport(),
    "FM independent": FlowMatchingTransport(coupling="independent"),
}
PEERS = ("I-CFM", "OT-CFM")
TRAININGS = {"": lambda est: est, ", forced": force_network}
N_STEPS = 10
# That of learning_rate="auto" for a perceptron.
LEARNING_RATE = 0.005


def read_cells(path):
    """Cells of each time."""
    cells = pd.read_csv(path)
    return [rows.drop(columns="samples").to_numpy() for _, rows in cells.groupby("samples")]


def without_network(before, after):
    """Predictions that no seed changes."""
    maps = known_maps(before, after)
    plan = ot.emd([], [], ot.dist(before, after))
    return {
        "cells of t - 1": before,
        "cells of t + 1": after,
        "shift": (before + maps["shift"](before)) / 2,
        "linear": (before + maps["linear"](before)) / 2,
        "POT, barycentre": (before + len(before) * plan @ after) / 2,
    }


def drawn_from_plan(before, after, rng):
    """Cells half of the way to a partner of exact transport."""
    plan = ot.emd([], [], ot.dist(before, after))
    partners = [rng.choice(len(after), p=row / row.sum()) for row in plan]
    return (before + after[partners]) / 2


def learnt(before, after, seed):
    """Yield names and predictions of flows, and what else is known about their fits."""
    for suffix, prepare in TRAININGS.items():
        for name, est in OURS.items():
            est = prepare(clone(est).set_params(random_state=seed))
            est, seconds = timed_fit(est, before, after)
            details = {"seconds": seconds, "steps": est.model_.n_kept}
            yield name + suffix, est.integrate(before, t_end=0.5, n_steps=N_STEPS), details
            if name == "FM exact":
                peer_seconds = seconds
        for name in PEERS:
            network = make_network(before.shape[1:], hidden_layer_sizes=FEW_FEATURES_LAYERS, seed=seed)
            options = {"per_feature": True, "seconds": peer_seconds, "learning_rate": LEARNING_RATE}
            peer = Torchcfm(name, network, before, after, seed=seed, **options)
            details = {"seconds": peer_seconds, "steps": peer.n_iter_}
            yield name + suffix, peer.transform(before, N_STEPS, t_end=0.5), details


def distances(predicted, cells):
    return {
        "W1": ot.emd2([], [], ot.dist(predicted, cells, metric="euclidean")),
        "W2": wasserstein_distance(predicted, cells),
        "energy x 1000": 1000 * energy_distance(predicted, cells),
    }


def run(before, cells, after, n_seeds):
    """Yield name, seed and measurements of every prediction."""
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        halves = np.array_split(rng.permutation(cells), 2)
        yield "floor", seed, distances(*halves)
        if seed == 0:
            for name, predicted in without_network(before, after).items():
                yield name, seed, distances(predicted, cells)
        yield "POT, drawn", seed, distances(drawn_from_plan(before, after, rng), cells)
        for name, predicted, details in learnt(before, after, seed):
            yield name, seed, distances(predicted, cells) | details


def print_table(title, table):
    """Print table[method][quantity], a list of values for each."""
    columns = ("W1", "W2", "energy x 1000", "seconds", "steps")
    print_row(title, columns, width=17)
    for method, found in table.items():
        cells = [spread(found[name], 4) for name in columns[:2]] + [spread(found[columns[2]], 1)]
        if "seconds" in found:
            cells += [spread(found["seconds"], 1), f"{np.mean(found['steps']):.0f}"]
        print_row(method, cells, width=17)
    print()


def main():
    arguments = make_parser(__doc__, seeds=5, data="required").parse_args()
    warnings.simplefilter("ignore")
    times = read_cells(arguments.data / "single_cell/emt.csv")
    results = ResultsFile("time", "method", "seed", "quantity", "value")
    for t in (1, 2):
        table = defaultdict(lambda: defaultdict(list))
        for method, seed, found in run(*times[t - 1 : t + 2], arguments.seeds):
            for quantity, value in found.items():
                results.write(t, method, seed, quantity, value)
                table[method][quantity].append(value)
        print_table(f"cells of time {t}", table)


if __name__ == "__main__":
    main()
