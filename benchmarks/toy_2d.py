"""How exactly do our estimators move five problems in the plane, beside flow matching given the same seconds?

    pip install torchcfm --no-deps
    python benchmarks/toy_2d.py --seeds 5
    python benchmarks/toy_2d.py --seeds 1 --predicted        # the paper's transition alone

Every problem has 10 000 training rows a side (a Gaussian source is drawn afresh) and 5 000 test
rows, all with equal counts a mode; Gaussian test sources are a scrambled Sobol sample, for the same
reason: a mode with one per cent of the mass too much costs more than all else.

NSGFPlusPlus, SinkhornFlowTransport and FlowMatchingTransport ("ours") have their default parameters: as many
iterations each. NSGFPlusPlus sets the seconds of I-CFM and OT-CFM, which are torchcfm's, with minibatches of
256, in the same standardised units, with the same network, optimiser and schedule.

Printed is the exact 2-Wasserstein distance between transported test sources and the test targets, mean and
spread over the seeds. The floor is the same distance from an independent target draw, also with equal counts;
the last line has the mean of the ratios to it. Numbers after the names are evaluations of a network. The
samples and paths of the first seed are drawn in toy_2d.png.
"""

import joblib
import matplotlib.pyplot as plt
import numpy as np
from _harness import (
    Torchcfm,
    eight_gaussians,
    make_parser,
    moons,
    print_row,
    set_evaluations,
    spread,
    timed_fit,
)
from scipy.stats.qmc import MultivariateNormalQMC

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.metrics import wasserstein_distance
from sklearn_nsgf.networks import make_network

N_TRAIN, N_TEST = 10_000, 5_000
# That of learning_rate="auto" for a perceptron.
LEARNING_RATE = 0.005
PEERS, PEER_STEPS = ("I-CFM", "OT-CFM"), (10, 100)


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


def draw_clouds(name, seed):
    """Training samples (the source None for noise), test source and target, and an independent target."""
    draw_source, draw_target = PROBLEMS[name]
    rng = np.random.default_rng(seed)
    target, test, independent = (draw_target(n, rng) for n in (N_TRAIN, N_TEST, N_TEST))
    if draw_source is None:
        normal = MultivariateNormalQMC(np.zeros(2), rng=rng)
        test_source = target.mean(0) + target.std(0) * normal.random(N_TEST)
        return (None, target), test_source, test, independent
    source, test_source = draw_source(N_TRAIN, rng), draw_source(N_TEST, rng)
    return (source, target), test_source, test, independent


def fit(est, source, target):
    return timed_fit(est, target) if source is None else timed_fit(est, source, target)


def run_predicted(samples, test_source, seed):
    """The paper's transition: moved points by name, the seconds of the fit, and the flow."""
    flow, seconds = fit(NSGFPlusPlus(transition="predicted", n_sinkhorn_steps=5, random_state=seed), *samples)
    moved = {f"predicted {n}": set_evaluations(flow, n).transform(test_source) for n in (10, 20)}
    return moved, [seconds], set_evaluations(flow, 10)


def run(samples, test_source, seed):
    """The same for all others, with NSGF++ as the flow."""
    flow, seconds = fit(NSGFPlusPlus(random_state=seed), *samples)
    sinkhorn, sinkhorn_seconds = fit(SinkhornFlowTransport(random_state=seed), *samples)
    moved = {f"NSGF++ {n}": set_evaluations(flow, n).transform(test_source) for n in (5, 10, 20)}
    moved["Sinkhorn 5"] = sinkhorn.transform(test_source)
    matching, matching_seconds = fit(FlowMatchingTransport(random_state=seed), *samples)
    for n in (5, 10, 100):
        moved[f"ours {n}"] = set_evaluations(matching, n).transform(test_source)
    for name in PEERS:
        options = {"per_feature": True, "seconds": seconds, "seed": seed, "learning_rate": LEARNING_RATE}
        peer = Torchcfm(name, make_network((2,), seed=seed), *samples, **options)
        moved |= {f"{name} {n}": peer.transform(test_source, n) for n in PEER_STEPS}
    return moved, [seconds, sinkhorn_seconds, matching_seconds], set_evaluations(flow, 5)


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
    print("wrote toy_2d.png")


def main():
    parser = make_parser(__doc__, seeds=5)
    parser.add_argument("--predicted", action="store_true", help="the paper's transition, by itself")
    arguments = parser.parse_args()
    ratios, figures = [], {}
    for name in PROBLEMS:
        distances, seconds = [], []
        for seed in range(arguments.seeds):
            samples, test_source, test, independent = draw_clouds(name, seed)
            moved, spent, flow = (run_predicted if arguments.predicted else run)(samples, test_source, seed)
            moved = {"floor": independent, **moved}
            distances.append(
                joblib.Parallel(n_jobs=-1)(
                    joblib.delayed(wasserstein_distance)(points, test) for points in moved.values()
                )
            )
            seconds.append(spent)
            if seed == 0:
                figures[name] = flow.integrate(test_source, return_path=True), test
        if not ratios:
            print_row("W2, mean ± std", [*moved, "seconds of our fits"])
        cells = [spread(values) for values in zip(*distances, strict=True)]
        print_row(name, [*cells, "  ".join(f"{mean:.1f}" for mean in np.mean(seconds, axis=0))])
        mean = np.mean(distances, axis=0)
        ratios.append(mean / mean[0])
    print_row("mean W2 / floor", [f"{ratio:.3f}" for ratio in np.mean(ratios, axis=0)])
    draw(figures)


if __name__ == "__main__":
    main()
