"""Five two-dimensional problems: our estimators beside flow matching given the same seconds.

    pip install torchcfm --no-deps
    python benchmarks/toy_2d.py --seeds 5

Every problem has 10 000 training rows a side (a Gaussian source is drawn afresh) and 5 000 test
rows, all with equal counts a mode; Gaussian test sources are a scrambled Sobol sample, for the same
reason: a mode with one per cent of the mass too much costs more than all else. The score is the
exact 2-Wasserstein distance between transported test sources and the test targets, divided by the
floor: the same distance from an independent target draw, also with equal counts.

NSGFPlusPlus has its default parameters and sets the seconds. SinkhornFlowTransport has as many
iterations as both phases together, and twice its default flows. I-CFM and OT-CFM are torchcfm's, with
minibatches of 256, in the same standardised units, with the same network, optimiser, schedule and averaging.
"""

import argparse
import math
import time

import joblib
import matplotlib.pyplot as plt
import numpy as np
import torch
from peers import train_torchcfm
from scipy.stats.qmc import MultivariateNormalQMC

from sklearn_nsgf import NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._base import PERCEPTRON_RATE
from sklearn_nsgf._validation import FlowScaling
from sklearn_nsgf.flow import odeint
from sklearn_nsgf.metrics import wasserstein_distance
from sklearn_nsgf.networks import make_network

N_TRAIN, N_TEST = 10_000, 5_000


def eight_gaussians(n, rng):
    """Centres on a circle of radius 5, standard deviation sqrt(0.1)."""
    angles = np.arange(n) % 8 * np.pi / 4
    centres = 5 * np.column_stack([np.cos(angles), np.sin(angles)])
    return centres + math.sqrt(0.1) * rng.standard_normal((n, 2))


def moons(n, rng):
    """Half circles of radius 3, standard deviation 0.6."""
    upper = (np.arange(n) % 2 == 0)[:, None]
    angles = np.pi * rng.random(n)
    arc = np.column_stack([np.cos(angles), np.sin(angles)])
    points = np.where(upper, arc, [1, 0.5] - arc)
    return 3 * (points + 0.2 * rng.standard_normal((n, 2))) - 1


def s_curve(n, rng):
    """Two three-quarter circles of radius 1.5, standard deviation 0.075."""
    lower = np.arange(n) % 2 == 0
    angles = 1.5 * np.pi * rng.random(n) * np.where(lower, -1, 1)
    arc = np.column_stack([np.sin(angles), np.sign(angles) * (np.cos(angles) - 1)])
    return 1.5 * (arc + 0.05 * rng.standard_normal((n, 2)))


def checkerboard(n, rng):
    """Eight filled squares of side 2 on [-4, 4]^2."""
    square = np.arange(n) % 8
    row = square // 2
    column = 2 * (square % 2) + row % 2
    return 2 * (np.column_stack([column, row]) - 2 + rng.random((n, 2)))


PROBLEMS = {
    "gaussian → 8 gaussians": (None, eight_gaussians),
    "gaussian → moons": (None, moons),
    "8 gaussians → moons": (eight_gaussians, moons),
    "gaussian → s-curve": (None, s_curve),
    "gaussian → checkerboard": (None, checkerboard),
}


def fit(est, source, target):
    start = time.perf_counter()
    est.fit(target) if source is None else est.fit(source, target)
    return est, time.perf_counter() - start


def fit_peer(name, source, target, seed, seconds):
    """Return a function of points and a number of Euler steps."""
    scaling = FlowScaling(source, target, per_feature=True)
    source_rows = None
    if source is not None:
        source_rows = torch.tensor(scaling.encode(source, 0.0), dtype=torch.float32)

    def draw_source(n):
        if source_rows is None:
            return torch.randn(n, 2)
        return source_rows[torch.randint(len(source_rows), (n,))]

    target_rows = torch.tensor(scaling.encode(target, 1.0), dtype=torch.float32)
    network = make_network((2,), seed=seed)
    network, _ = train_torchcfm(
        name, network, draw_source, target_rows, seconds=seconds, seed=seed, learning_rate=PERCEPTRON_RATE
    )

    @torch.no_grad()
    def transport(points, n_steps):
        Z = torch.tensor(scaling.encode(points, 0.0), dtype=torch.float32)
        return scaling.decode(odeint(network, Z, n_steps=n_steps).numpy(), 1.0, np.float64)

    return transport


def draw_clouds(name, seed):
    """Training source (None for noise) and target, test source and target, and an independent target."""
    draw_source, draw_target = PROBLEMS[name]
    rng = np.random.default_rng(seed)
    target, test, independent = (draw_target(n, rng) for n in (N_TRAIN, N_TEST, N_TEST))
    if draw_source is None:
        source = None
        normal = MultivariateNormalQMC(np.zeros(2), rng=rng)
        test_source = target.mean(0) + target.std(0) * normal.random(N_TEST)
    else:
        source, test_source = draw_source(N_TRAIN, rng), draw_source(N_TEST, rng)
    return source, target, test_source, test, independent


def distances_to(test, answers):
    return joblib.Parallel(n_jobs=joblib.effective_n_jobs(-1))(
        joblib.delayed(wasserstein_distance)(answer, test) for answer in answers
    )


def run_predicted(name, seed):
    """The paper's transition: one line of the table, and the paths."""
    source, target, test_source, test, independent = draw_clouds(name, seed)
    flow, seconds = fit(
        NSGFPlusPlus(transition="predicted", n_sinkhorn_steps=5, random_state=seed), source, target
    )
    answers = [independent]
    for n_evaluations in (10, 20):
        answers.append(flow.set_params(n_straight_steps=n_evaluations - 5).transform(test_source))
    path = flow.set_params(n_straight_steps=5).integrate(test_source, return_path=True)
    return [*distances_to(test, answers), seconds], path, test


def run(name, seed):
    """Return one line of the table for a problem and a seed, and the paths of NSGF++."""
    source, target, test_source, test, independent = draw_clouds(name, seed)
    two_phases, seconds = fit(NSGFPlusPlus(random_state=seed), source, target)
    more = {"max_iter": 2 * two_phases.max_iter, "n_flows": 2 * two_phases.n_flows}
    sinkhorn, sinkhorn_seconds = fit(SinkhornFlowTransport(**more, random_state=seed), source, target)
    answers = [independent]
    for n_evaluations in (5, 10, 20):
        two_phases.set_params(n_straight_steps=n_evaluations - two_phases.n_sinkhorn_steps)
        answers.append(two_phases.transform(test_source))
    answers.append(sinkhorn.transform(test_source))
    for peer in ("I-CFM", "OT-CFM"):
        transport = fit_peer(peer, source, target, seed, seconds)
        answers += [transport(test_source, n_steps) for n_steps in (10, 100)]
    distances = distances_to(test, answers)
    two_phases.set_params(n_straight_steps=5 - two_phases.n_sinkhorn_steps)
    path = two_phases.integrate(test_source, return_path=True)
    return [*distances, seconds, sinkhorn_seconds], path, test


HEADER = [
    "floor",
    "NSGF++ 5",
    "NSGF++ 10",
    "NSGF++ 20",
    "Sinkhorn 5",
    "I-CFM 10",
    "I-CFM 100",
    "OT-CFM 10",
    "OT-CFM 100",
]


def draw(figures):
    figure, axes = plt.subplots(2, len(figures), figsize=(3 * len(figures), 6), layout="constrained")
    for (top, bottom), (name, (path, test)) in zip(axes.T, figures.items(), strict=True):
        top.scatter(*test[:2000].T, s=1, color="0.8")
        top.scatter(*path[-1, :2000].T, s=1, color="tab:orange")
        top.set_title(name)
        bottom.plot(*path[:, :300].transpose(2, 0, 1), color="tab:blue", alpha=0.2, linewidth=0.7)
        bottom.scatter(*path[-1, :300].T, s=3, color="tab:orange")
    for axis in axes.flat:
        axis.set(aspect="equal", xticks=[], yticks=[])
    figure.savefig("toy_2d.png", dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--predicted", action="store_true", help="the paper's transition, by itself")
    arguments = parser.parse_args()
    n_seeds = arguments.seeds
    header = ["floor", "predicted 10", "predicted 20"] if arguments.predicted else HEADER
    print(f"W2 on {N_TEST} test points, mean ± standard deviation over {n_seeds} seeds; evaluations")
    print(f"{'':26}" + "".join(f"{name:>14}" for name in header) + "   seconds of our fits")
    ratios, figures = [], {}
    for name in PROBLEMS:
        rows = []
        for seed in range(n_seeds):
            row, path, test = (run_predicted if arguments.predicted else run)(name, seed)
            rows.append(row)
            figures.setdefault(name, (path, test))
        mean, std = np.mean(rows, axis=0), np.std(rows, axis=0)
        n = len(header)
        cells = "".join(f"{m:7.3f} ± {s:4.3f}" for m, s in zip(mean[:n], std[:n], strict=True))
        print(f"{name:26}{cells}" + "".join(f"{seconds:8.1f}" for seconds in mean[n:]), flush=True)
        ratios.append(mean[1:n] / mean[0])
    print(f"{'mean W2 / floor':40}" + "".join(f"{ratio:14.3f}" for ratio in np.mean(ratios, axis=0)))
    draw(figures)
    print("wrote toy_2d.png")


if __name__ == "__main__":
    main()
