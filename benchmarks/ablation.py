"""What does each default earn? One factor at a time around the defaults, on three data sets.

    OMP_NUM_THREADS=1 python benchmarks/ablation.py --data DIR --seeds 3
    python benchmarks/ablation.py --data DIR --factors blur n_flows
    python benchmarks/ablation.py --data DIR --quick    # does it run: a few steps on 200 rows

Data: "plane", eight Gaussians to moons, 2 000 training and 2 000 test rows a side; "digits",
scikit-learn's, from noise; "cells", time 0 to time 3 of DIR/single_cell/emt.csv; "clip", the 512 features
of DIR/clip_flickr_pairs/image.npy, from noise, for the factor "noise" alone. Of all but the plane a fifth
is held out. The seed sets rows and fit.

The error is that of moved test rows, or of 2 000 rows from noise, against held-out rows of the target:
exact 2-Wasserstein distance in the plane, else the energy distance of rows standardised by the training
target, with the pairs of a row with itself, so that it stays positive. The floor is the error of other rows
of the target: fresh ones in the plane, training rows elsewhere.

Every fit makes a fifth of its `max_iter` (800 steps), `n_flows` and `n_couplings`, so that each flow serves
as many steps as in a whole training, and never stops early; all else has its default. The values of
`n_flows` and `n_couplings` are those of a whole training. "averaging" and "first_share" are constants of
the package; the latter is for the predicted transition. "solver" follows one trained flow with a solver and a
number of steps: "euler 6" makes as many evaluations as "heun 3". "noise" and "rows" put random points and
rows into the minibatches, in place of Sobol points and rows that are spread.

Printed is, of each factor and value, the error over that of the defaults with the same seed (below 1 is
better), mean and spread over the seeds, and the CPU seconds of a fit; of the defaults, the error over the
floor. benchmarks/results/ablation.csv gets a line for each fit, and what it holds is not computed again:
delete it when the package has changed. The figure is ablation.png beside it. Three seeds take about 40
minutes of one thread.
"""

import itertools
import tempfile
import time
import warnings
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _harness import ResultsFile, eight_gaussians, make_parser, moons, print_row, shortened, spread
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport, _nsgf_plus_plus
from sklearn_nsgf._learning import training
from sklearn_nsgf.flow import ArraySampler, _samplers
from sklearn_nsgf.metrics import wasserstein_distance

ESTIMATORS = {"NSGF": SinkhornFlowTransport, "OT-CFM": FlowMatchingTransport, "NSGF++": NSGFPlusPlus}
BLURS = [0.01, 0.02, 0.03, 0.06, 0.12]
# A value is that of a parameter or patch with the factor's name, or several of them.
FACTORS = {
    "NSGF": {
        "solver": [("euler", 5), ("euler", 6), ("heun", 3), ("euler", 10), ("heun", 5)],
        "n_steps": [2, 5, 10],
        "step_size": [{"n_steps": 10, "step_size": size} for size in ("harmonic", 0.3, 0.5)],
        "flow_batch_size": [128, 256, 1024, 2048],
        "blur": [*BLURS, (0.12, 0.03)],
        "n_flows": [4, 16, 32, 128],
        "hidden_layer_sizes": [(64,) * 3, (128,) * 3, (256,) * 3, (512,) * 2],
        "activation": ["ReLU", "SiLU", "GELU"],
        "averaging": [1e-6, 0.03, 0.1, 0.3],
        "noise": ["Sobol", "random"],
        "rows": ["spread", "random"],
    },
    "OT-CFM": {
        "coupling": ["exact", "independent", "sinkhorn"],
        "coupling_batch_size": [64, 256, 512, 1024],
        "n_couplings": [32, 64, 128, 512],
        "noise": ["Sobol", "random"],
        "rows": ["spread", "random"],
    },
    "NSGF++": {
        "transition": ["direct", "predicted", {"transition": "predicted", "n_sinkhorn_steps": 5}],
        "n_sinkhorn_steps": [{"n_sinkhorn_steps": n, "n_straight_steps": 10 - n} for n in (1, 2, 5)],
        "n_couplings": [32, 64, 128, 256],
        "first_share": [{"transition": "predicted", "first_share": share} for share in (0.1, 0.25, 0.5)],
        "blur": BLURS,
    },
}
# The most rows of a sample, and the part of the steps that each fit has.
SIZE, QUICK_SIZE = (2000, 1 / 5), (200, 1 / 200)
RESULTS = Path(__file__).parent / "results" / "ablation.csv"
KEY = ["estimator", "setting", "data", "seed"]


def draw_plane(seed, _):
    rng = np.random.default_rng(seed)
    source, new = (eight_gaussians(SIZE[0], rng) for _ in range(2))
    target, test, fresh = (moons(SIZE[0], rng) for _ in range(3))
    return (source, target), new, test, fresh


def draw_cells(seed, folder):
    cells = pd.read_csv(folder / "single_cell/emt.csv")
    before, after = (cells[cells["samples"] == t].drop(columns="samples").to_numpy() for t in (0, 3))
    source, new = train_test_split(before, test_size=0.2, random_state=seed)
    (target,), _, test, fresh = from_noise(after, seed)
    return (source, target), new, test, fresh[: len(new)]


def from_noise(rows, seed):
    train, test = train_test_split(rows, test_size=0.2, random_state=seed)
    return (train,), None, test, train


def energy(rows, test, train):
    scaler = StandardScaler().fit(train)
    X, Y = scaler.transform(rows), scaler.transform(test)
    return 2 * cdist(X, Y).mean() - cdist(X, X).mean() - cdist(Y, Y).mean()


# Training samples, new source rows (None for noise), test rows, rows of the floor; and the error.
CLIP = "clip_flickr_pairs/image.npy"
DATA = {
    "plane": (draw_plane, lambda rows, test, train: wasserstein_distance(rows, test)),
    "digits": (lambda seed, _: from_noise(load_digits().data, seed), energy),
    "cells": (draw_cells, energy),
    "clip": (lambda seed, folder: from_noise(np.load(folder / CLIP), seed), energy),
}
USUAL, DATA_OF = ["plane", "digits", "cells"], {"noise": ["digits", "clip"], "defaults": list(DATA)}


def random_rows(sampler, n_rows, rng):
    return rng.choice(sampler.n_rows, n_rows, replace=False)


def constant(module, name):
    return getattr(module, name), lambda value: patch.object(module, name, value)


# What is not a parameter: the default, and what another value patches during a fit.
PATCHES = {
    "activation": ("ReLU", lambda name: patch.object(nn, "ReLU", getattr(nn, name))),
    "averaging": constant(training, "AVERAGING"),
    "first_share": constant(_nsgf_plus_plus, "FIRST_SHARE"),
    "noise": ("Sobol", lambda _: patch.object(_samplers, "_MOST_SOBOL_FEATURES", 0)),
    "rows": ("spread", lambda _: patch.object(ArraySampler, "_draw_equally", random_rows)),
}


def changes(name, factor, value):
    """What a value changes of the defaults."""
    defaults = ESTIMATORS[name]().get_params() | {key: default for key, (default, _) in PATCHES.items()}
    defaults["solver"] = "euler", defaults.get("n_steps")
    options = value if isinstance(value, dict) else {factor: value}
    return {key: each for key, each in options.items() if each != defaults[key]}


def as_text(value):
    if isinstance(value, dict):
        return ", ".join(f"{key} {as_text(each)}" for key, each in value.items()) or "defaults"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@lru_cache(maxsize=1)
def read(data, seed, folder, n_rows):
    """Training samples, new source rows, how far rows are from the target, and the floor of that."""
    draw_rows, error = DATA[data]
    samples, new, test, fresh = draw_rows(seed, folder)
    samples = [rows[:n_rows] for rows in samples]
    distance = partial(error, test=test[:n_rows], train=samples[-1])
    return samples, None if new is None else new[:n_rows], distance, distance(fresh[:n_rows])


@lru_cache(maxsize=1)
def fit(name, options, where, part):
    """The estimator fitted with these changes, and the CPU seconds."""
    est = ESTIMATORS[name](early_stopping=False, random_state=where[1])
    with ExitStack() as stack:
        for key, value in options:
            if key in PATCHES:
                stack.enter_context(PATCHES[key][1](value))
            else:
                est.set_params(**{key: value})
        est = shortened(est, part)
        start = time.process_time()
        est.fit(*read(*where)[0])
        return est, time.process_time() - start


def measure(name, options, data, seed, folder, size):
    """Error, floor and seconds."""
    where = data, seed, folder, size[0]
    _, new, distance, floor = read(*where)
    options = dict(options)
    solver = options.pop("solver", None)
    est, seconds = fit(name, tuple(options.items()), where, size[1])
    if solver:
        est.set_params(solver=solver[0], n_steps=solver[1])
    moved = est.sample(size[0], random_state=seed) if new is None else est.transform(new)
    return distance(moved), floor, seconds


def rows_of(name, factors):
    """Factor, value, changes and data of an estimator, the defaults first."""
    for factor, values in {"defaults": [{}], **FACTORS[name]}.items():
        if factor in ("defaults", *factors):
            for value in values:
                yield factor, value, changes(name, factor, value), DATA_OF.get(factor, USUAL)


def run(arguments, path, size):
    """Append to the CSV what it lacks."""
    results = ResultsFile(*KEY, "error", "floor", "seconds", n_keys=len(KEY), path=path)
    for seed, data, name in itertools.product(range(arguments.seeds), DATA, ESTIMATORS):
        for _, _, options, where in rows_of(name, arguments.factors):
            key = name, as_text(options), data, seed
            if data in where and key not in results:
                results.write(*key, *measure(name, options, data, seed, arguments.data, size))


def report(arguments, table):
    """Print the rows; return the ratios by estimator and factor."""
    table = table[table["seed"] < arguments.seeds].set_index(KEY).sort_index()
    print_row("error over that of the defaults", [*DATA, "seconds"], title_width=47)
    panels = {}
    for name in ESTIMATORS:
        base = table.loc[name, "defaults"]
        for factor, value, options, where in rows_of(name, arguments.factors):
            rows = table.loc[name, as_text(options)].loc[where]
            ratio = (rows["error"] / base["floor" if factor == "defaults" else "error"]).dropna()
            cells = [spread(ratio[data]) if data in where else "" for data in DATA]
            title = f"{name}: {as_text(value if isinstance(value, dict) else {factor: value})}"
            print_row(title, [*cells, f"{rows['seconds'].mean():.1f}"], title_width=47)
            if factor != "defaults":
                panels.setdefault(f"{name}: {factor}", {})[as_text(value).replace(", ", "\n")] = ratio
    return panels


def draw(panels, path):
    n_columns = min(5, len(panels))
    n_rows = -(-len(panels) // n_columns)
    options = {"figsize": (16, 3 * n_rows), "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(n_rows, n_columns, **options)
    lines = {}
    for axis, (title, values) in zip(axes.flat, panels.items(), strict=False):
        axis.axhline(1, color="0.7", linewidth=0.8)
        for k, data in enumerate(DATA):
            if data in next(iter(values.values())):
                ratios = np.array([ratio[data] for ratio in values.values()])
                places, style = np.arange(len(ratios)) + 0.06 * k, {"fmt": "o-", "ms": 3, "color": f"C{k}"}
                lines[data] = axis.errorbar(places, ratios.mean(axis=1), ratios.std(axis=1), **style)
        axis.set_xticks(range(len(values)), values, fontsize=7, rotation=20)
        axis.set_title(title, fontsize=9)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.legend(lines.values(), lines, loc="outside lower right", ncols=len(lines))
    figure.savefig(path, dpi=80)
    print(f"wrote {path}")


def main():
    parser = make_parser(__doc__, seeds=3, data="required")
    factors = list(dict.fromkeys(itertools.chain(*FACTORS.values())))
    parser.add_argument("--factors", nargs="+", choices=factors, default=factors, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="one seed and a few steps; nothing is kept")
    arguments, path, size = parser.parse_args(), RESULTS, SIZE
    if arguments.quick:
        arguments.seeds, path, size = 1, Path(tempfile.mkdtemp()) / RESULTS.name, QUICK_SIZE
    warnings.simplefilter("ignore")
    run(arguments, path, size)
    draw(report(arguments, pd.read_csv(path, comment="#")), path.with_suffix(".png"))


if __name__ == "__main__":
    main()
