"""Are the estimators ever worse than what needs no network, however few the rows?

    python benchmarks/small.py --seeds 5 [--data DIR] [--rows 30,50,100,200,500,2000] [--features 1,2,5,20]
    python benchmarks/small.py --seeds 5 --target-rows 20000

A source of n rows is moved to a target of n rows, or of --target-rows (made targets only). Made targets: a
Gaussian, a bent Gaussian, three clusters and heavy tails (Student's t, 3 degrees of freedom), in 1 to 20
features. With --data DIR also real ones: red to white wines (DIR/uci) and cells between two time points
(DIR/single_cell/emt.csv), n rows of each.

Printed is the energy distance of 1 500 new rows to as many new rows of the target (real data: rows that
were not drawn), in the target's standard deviations, mean and spread over the seeds: of nothing, the shift of
the mean, the linear map (Ledoit-Wolf), the marginal quantile map, POT's SinkhornTransport (the best reg of a
grid, chosen on the score itself; at most 500 rows, 2 000 take minutes) and the estimators with their
defaults; and the CPU seconds of our fits. A star marks a cell of ours above 1.05 times the best of the first
four plus one standard error of that.
"""

import time
import warnings

import numpy as np
import ot
import pandas as pd
from _harness import known_maps, make_parser, print_row, spread

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.metrics import energy_distance

OURS = {"NSGF": SinkhornFlowTransport, "OT-CFM": FlowMatchingTransport, "NSGF++": NSGFPlusPlus}
N_NEW = 1500
POT_ROWS = 500


def bent(rng, n, d):
    Z = rng.normal(size=(n, d))
    Z[:, -1] += 0.7 * (Z[:, 0] ** 2 if d > 1 else np.abs(Z[:, 0]))
    return Z


def clusters(rng, n, d):
    centres = np.zeros((3, d))
    centres[0, 0], centres[1, 0], centres[2, -1] = 3, -3, 3
    return centres[rng.integers(3, size=n)] + 0.5 * rng.normal(size=(n, d))


MADE = {
    "Gaussian": lambda rng, n, d: rng.normal(0.3, 1.2, size=(n, d)),
    "bent": bent,
    "clusters": clusters,
    "heavy tails": lambda rng, n, d: rng.standard_t(3, size=(n, d)) + 0.5,
}


def read_pairs(data):
    """Source and target of each real data set."""
    wines = [np.loadtxt(data / f"uci/winequality-{c}.csv", delimiter=",")[:, :11] for c in ("red", "white")]
    cells = pd.read_csv(data / "single_cell/emt.csv")
    times = [cells[cells["samples"] == t].drop(columns="samples").to_numpy() for t in (0, 3)]
    return {"wines": [np.unique(each, axis=0) for each in wines], "cells": times}


def best_of_pot(X, Y, new, score):
    found, X, Y = [], X[:POT_ROWS], Y[:POT_ROWS]
    for reg in (0.01, 0.03, 0.1, 0.3):
        moved = ot.da.SinkhornTransport(reg_e=reg, norm="median", max_iter=200).fit(Xs=X, Xt=Y).transform(new)
        found += [score(moved)] if np.isfinite(moved).all() else []
    return min(found, default=np.nan)


def run(X, Y, new, new_target, seed):
    """Distances of all methods, and our CPU seconds."""
    unit = new_target.std(axis=0)
    score = lambda moved: energy_distance(moved / unit, new_target / unit)  # noqa: E731
    found = {name: score(move(new)) for name, move in known_maps(X, Y).items()}
    found["POT"] = best_of_pot(X, Y, new, score)
    for name, estimator in OURS.items():
        start = time.process_time()
        est = estimator(random_state=seed).fit(X, Y)
        found[f"{name} s"] = time.process_time() - start
        found[name] = score(est.transform(new))
    return found


def samples(arguments):
    """Title, a function that draws rows, new rows and the same of the target, and the most rows it draws."""
    n_targets = arguments.target_rows
    for d in map(int, filter(None, arguments.features.split(","))):
        for name, target in MADE.items():

            def draw(rng, n, target=target, d=d):
                new, new_target = rng.normal(size=(N_NEW, d)), target(rng, N_NEW, d)
                return rng.normal(size=(n, d)), target(rng, n_targets or n, d), new, new_target

            yield f"{name}, d = {d}", draw, np.inf
    for name, pair in read_pairs(arguments.data).items() if arguments.data and not n_targets else ():

        def draw(rng, n, pair=pair):
            X, Y = (rng.permutation(each) for each in pair)
            return X[:n], Y[:n], X[n:][:N_NEW], Y[n:][:N_NEW]

        yield name, draw, min(map(len, pair)) / 2


def main():
    parser = make_parser(__doc__, seeds=5, data="optional")
    parser.add_argument("--rows", default="30,50,100,200,500,2000")
    parser.add_argument("--target-rows", type=int)
    parser.add_argument("--features", default="1,2,5,20")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    columns = ["nothing", "shift", "linear", "quantile", "POT", *OURS, *(f"{name} s" for name in OURS)]
    print_row("target, rows", columns, width=14)
    for title, draw, most_rows in samples(arguments):
        for n in (n for n in map(int, arguments.rows.split(",")) if n <= most_rows):
            runs = [run(*draw(np.random.default_rng(s), n), s) for s in range(arguments.seeds)]
            table = {name: np.array([each[name] for each in runs]) for name in columns}
            best = min((table[name] for name in columns[:4]), key=np.mean)
            limit = 1.05 * best.mean() + best.std() / np.sqrt(max(1, len(best) - 1))
            cells = [
                spread(table[name]) + ("*" if name in OURS and table[name].mean() > limit else "")
                for name in columns
            ]
            print_row(f"{title}, {n}", cells, width=14)


if __name__ == "__main__":
    main()
