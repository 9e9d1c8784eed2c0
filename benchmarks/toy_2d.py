"""How exactly do our estimators move five problems in the plane, beside flow matching, and in which time?

    pip install torchcfm --no-deps
    OMP_NUM_THREADS=1 python benchmarks/toy_2d.py --seeds 5
    OMP_NUM_THREADS=1 python benchmarks/toy_2d.py --seeds 1 --shares .125 .25 .5 2
    python benchmarks/toy_2d.py --draw

Every problem has 10 000 training rows a side (a Gaussian source is drawn afresh) and 5 000 test rows, all
with equal counts a mode; Gaussian test sources are a scrambled Sobol sample, for the same reason: a mode with
one per cent of the mass too much costs more than all else.

NSGFPlusPlus, SinkhornFlowTransport and FlowMatchingTransport have their default parameters, and with --shares
a part or a multiple of their iterations, flows and couplings; --methods "NSGF++ predicted" measures the
paper's transition. "start" is where they start, without a network. I-CFM and OT-CFM of torchcfm have the
seconds of FlowMatchingTransport, minibatches of 256, standardised units, and the same network, optimiser and
schedule. Every flow starts at its own source: ours at noise around the clusters of the data, torchcfm's at
noise with its deviations. Seconds are those of the CPU.

Measured is the exact 2-Wasserstein distance between transported test sources and the test targets, and for
the 8 Gaussians the share of points farther than four deviations from every mode. The floor is an independent
target draw, also with equal counts. Every figure goes to results/toy_2d.csv at once; those that are there are
not measured again. --draw makes results/toy_2d.md and toy_2d.png (distance against seconds) of them.
"""

import itertools
import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from _harness import (
    FEW_FEATURES_LAYERS,
    ResultsFile,
    Torchcfm,
    eight_gaussians,
    make_parser,
    moons,
    shortened,
    spread,
    timed_fit,
    with_evaluations,
)
from matplotlib.ticker import LogLocator, NullFormatter
from scipy.stats.qmc import MultivariateNormalQMC

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.metrics import wasserstein_distance
from sklearn_nsgf.networks import make_network

N_TRAIN, N_TEST = 10_000, 5_000
# That of learning_rate="auto" for a perceptron.
LEARNING_RATE = 0.005
N_EVALUATIONS = 2, 5, 10, 100
OURS = {
    "NSGF++": NSGFPlusPlus,
    "NSGF": SinkhornFlowTransport,
    "OT-CFM": FlowMatchingTransport,
    "start": partial(NSGFPlusPlus, max_iter=0),
    "NSGF++ predicted": partial(NSGFPlusPlus, transition="predicted", n_sinkhorn_steps=5),
}
PEERS = {"I-CFM, torchcfm": "I-CFM", "OT-CFM, torchcfm": "OT-CFM"}
METHODS = "NSGF++", "NSGF", "OT-CFM", *PEERS
COLUMNS = "problem", "method", "seed", "share", "evaluations", "W2", "outside", "seconds"


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


def draw_clouds(problem, seed):
    """Training samples (the source None for noise), test sources, a test target and an independent one."""
    draw_source, draw_target = PROBLEMS[problem]
    rng = np.random.default_rng(seed)
    target, test, independent = (draw_target(n, rng) for n in (N_TRAIN, N_TEST, N_TEST))
    if draw_source is None:
        noise = MultivariateNormalQMC(np.zeros(2), rng=rng).random(N_TEST)
        return (None, target), target.mean(0) + noise * target.std(0), test, independent
    source, test_source = draw_source(N_TRAIN, rng), draw_source(N_TEST, rng)
    return (source, target), test_source, test, independent


def noise_of(est, seed):
    """Noise of a generation, as even as it is in training."""
    frame = est.model_.space.frame
    return frame.decode(frame.noise_of(None).sampler.draw(N_TEST, np.random.default_rng(seed)), 0.0, float)


def fit(method, samples, test_source, seed, share, seconds):
    """A function that moves the test source in so many evaluations, and the seconds."""
    if method in OURS:
        est = shortened(OURS[method](random_state=seed), share)
        est, spent = timed_fit(est, *(each for each in samples if each is not None))
        points = noise_of(est, seed) if samples[0] is None else test_source
        return lambda n: with_evaluations(est, n).transform(points), spent
    options = {"per_feature": True, "seconds": share * seconds, "seed": seed, "learning_rate": LEARNING_RATE}
    start = time.process_time()
    peer = Torchcfm(
        PEERS[method],
        make_network((2,), hidden_layer_sizes=FEW_FEATURES_LAYERS, seed=seed),
        *samples,
        **options,
    )
    return partial(peer.transform, test_source), time.process_time() - start


def figures_of(points, test, problem):
    """W2 to the test target, and the share of points outside of all modes."""
    outside = np.nan
    if PROBLEMS[problem][1] is eight_gaussians:
        angles = np.arange(8) * np.pi / 4
        centres = 5 * np.column_stack([np.cos(angles), np.sin(angles)])
        nearest = np.linalg.norm(points[:, None] - centres, axis=2).min(axis=1)
        outside = np.mean(nearest > 4 * np.sqrt(0.1))
    return wasserstein_distance(points, test), outside


def measure(results, problem, seed, share, methods):
    samples, test_source, test, independent = draw_clouds(problem, seed)
    floor = problem, "floor", seed, 1.0, 0
    if floor not in results:
        results.write(*floor, *figures_of(independent, test, problem), 0.0)
    for method in methods:
        counts = (0,) if method == "start" else N_EVALUATIONS
        keys = [(problem, method, seed, share, n) for n in counts]
        if all(key in results for key in keys):
            continue
        seconds = 0 if method in OURS else results[problem, "OT-CFM", seed, 1.0, N_EVALUATIONS[0]][-1]
        move, spent = fit(method, samples, test_source, seed, share, seconds)
        for key in keys:
            results.write(*key, *figures_of(move(max(key[-1], 2)), test, problem), spent)
        print(*key[:4], "done", flush=True)


def collected(results, problem, method, share, n_evaluations, place=0):
    """A figure of all seeds that there are."""
    wanted = [problem, method, f"{share:g}", str(n_evaluations)]
    rows = results.rows.items()
    return np.array([row[place] for (*key, _, part, n), row in rows if [*key, part, n] == wanted])


def write_table(results):
    """Markdown: W2 by method and evaluations, mean and spread over the seeds, and the seconds of a fit."""
    lines = ["problem|method|" + "|".join(map(str, N_EVALUATIONS)) + "|CPU s", "|".join("-" * 7)]
    for problem in PROBLEMS:
        for name in ("floor", "start"):
            lines.append(f"{problem}|{name}|{spread(collected(results, problem, name, 1.0, 0))}||||")
        for method in METHODS:
            cells = [spread(collected(results, problem, method, 1.0, n)) for n in N_EVALUATIONS]
            seconds = collected(results, problem, method, 1.0, N_EVALUATIONS[0], -1).mean()
            lines.append("|".join([problem, method, *cells, f"{seconds:.0f}"]))
    results.path.with_suffix(".md").write_text("".join(f"|{line}|\n" for line in lines))
    print(*lines, sep="\n")


def draw(results):
    """W2 against seconds of fit with the first seed, five evaluations and dotted a hundred."""
    figure, axes = plt.subplots(
        1, len(PROBLEMS), figsize=(16, 3.6), sharex=True, sharey=True, layout="constrained"
    )
    for axis, problem in zip(axes, PROBLEMS, strict=True):
        for (k, method), n in itertools.product(enumerate(METHODS), (5, 100)):
            points = sorted(
                (row[-1], row[0])
                for (*key, _, evaluations), row in results.rows.items()
                if [*key, evaluations] == [problem, method, "0", str(n)]
            )
            if points:
                style = {"label": method, "marker": "o"} if n == 5 else {"linestyle": ":"}
                axis.plot(*zip(*points, strict=True), color=f"C{k}", markersize=3, **style)
        axis.axhline(results[problem, "floor", 0, 1.0, 0][0], color="0.6", linewidth=1)
        axis.set(title=problem, xscale="log", yscale="log", xlabel="CPU seconds of the fit")
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_locator(LogLocator(subs=(1, 2, 5)))
            each.set_major_formatter("{x:g}")
            each.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("W2 to the test target")
    axes[-1].legend(fontsize="small")
    figure.savefig("toy_2d.png", dpi=90)


def main():
    parser = make_parser(__doc__, seeds=5)
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0], help="of the default's iterations")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--draw", action="store_true", help="make table and picture of what there is")
    arguments = parser.parse_args()
    results = ResultsFile(*COLUMNS, n_keys=5)
    if arguments.draw:
        write_table(results)
        return draw(results)
    for seed, problem, share in itertools.product(range(arguments.seeds), PROBLEMS, arguments.shares):
        measure(results, problem, seed, share, arguments.methods)


if __name__ == "__main__":
    main()
