"""How exact are the estimators in the protocol of [SF]2M, four problems in the plane with 100 evaluations?

    python benchmarks/sf2m.py --seeds 5

Tong et al., Simulation-free Schrödinger bridges via score and flow matching (AISTATS 2024), Table 2, report
the exact 2-Wasserstein distance of 10 000 test points, moved by 100 Euler steps, to 10 000 of the target.
Their figures for OT-CFM and [SF]2M-Exact are printed last, as published.

Source and target have 10 000 rows to train on, or --rows, and 10 000 other rows are moved and compared. The
paper does not say whether its training points are a sample of that size or drawn afresh: with --rows
1_000_000 nearly all that a fit sees are new. The estimators are fitted with their defaults, and then take 100
evaluations of a network for each point: 100 Euler steps, or 2 and 98 of NSGF++. Printed are mean and spread
over the seeds, and the CPU seconds of our fits. The floor is the distance of another target sample of 10 000.
Unlike in toy_2d.py the 8 Gaussians do not have equal counts: floor and distances measure to a large part how
unequal they came out. Results go to results/sf2m.csv, and what is there is not run again. A seed takes a
quarter of an hour on one core, and 4.5 GB.

The generators are those of torchcfm 1.0.7 and of its repository's runner, to which the paper points: 8
Gaussians with a radius of 5 and variances of sqrt(0.1) (the deviation for `var=0.1` is passed on as a
covariance), torchdyn's moons, 3 x - 1, with one uniform number from 0 to 0.2 added to both features of a
point, and scikit-learn's S-curve with noise 0.05, times 1.5. That the published figures were made with
exactly these is an assumption.
"""

import numpy as np
from _harness import ResultsFile, make_parser, print_row, spread, timed_fit, with_evaluations
from sklearn.datasets import make_s_curve

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.metrics import wasserstein_distance

N_ROWS, N_EVALUATIONS = 10_000, 100
OURS = {"NSGF": SinkhornFlowTransport, "NSGF++": NSGFPlusPlus, "FM": FlowMatchingTransport}


def normal(n, rng):
    return rng.standard_normal((n, 2))


def eight_gaussians(n, rng):
    angles = np.pi / 4 * rng.integers(8, size=n)
    return 5 * np.column_stack([np.cos(angles), np.sin(angles)]) + 0.1**0.25 * normal(n, rng)


def moons(n, rng):
    angles = np.linspace(0, np.pi, n // 2)
    upper = np.column_stack([np.cos(angles), np.sin(angles)])
    return 3 * (np.concatenate([upper, [1, 0.5] - upper]) + 0.2 * rng.random((n, 1))) - 1


def s_curve(n, rng):
    return 1.5 * make_s_curve(n, noise=0.05, random_state=rng.integers(2**31))[0][:, [0, 2]]


# Source, target, and what is published for OT-CFM and [SF]2M-Exact.
PROBLEMS = {
    "normal → 8 gaussians": (normal, eight_gaussians, 0.303, 0.275),
    "moons → 8 gaussians": (moons, eight_gaussians, 0.601, 0.726),
    "normal → moons": (normal, moons, 0.130, 0.124),
    "normal → s-curve": (normal, s_curve, 0.144, 0.128),
}


def run(results, n_rows, problem, seed):
    """Write distances to the test target, and the seconds of a fit."""
    draw_source, draw_target, *_ = PROBLEMS[problem]
    rng = np.random.default_rng(seed)
    source, new = draw_source(n_rows, rng), draw_source(N_ROWS, rng)
    target, test, independent = (draw_target(n, rng) for n in (n_rows, N_ROWS, N_ROWS))
    for name in ("floor", *OURS):
        key = n_rows, problem, name, seed
        if key in results:
            continue
        if name == "floor":
            results.write(*key, wasserstein_distance(independent, test), 0.0)
            continue
        est, seconds = timed_fit(OURS[name](random_state=seed), source, target)
        moved = with_evaluations(est, N_EVALUATIONS).transform(new)
        results.write(*key, wasserstein_distance(moved, test), seconds)


def main():
    parser = make_parser(__doc__, seeds=5)
    parser.add_argument("--rows", type=int, default=N_ROWS, help="to train on")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    arguments = parser.parse_args()
    results = ResultsFile("rows", "problem", "method", "seed", "W2", "seconds", n_keys=4)
    print_row("W2, mean ± std", ["floor", *OURS, "OT-CFM", "[SF]2M-Exact", "seconds of our fits"])
    for problem in arguments.problems:
        for seed in range(arguments.seeds):
            run(results, arguments.rows, problem, seed)
        figures = np.array(
            [
                [results[arguments.rows, problem, name, seed] for seed in range(arguments.seeds)]
                for name in ("floor", *OURS)
            ]
        )
        cells = [spread(each) for each in figures[:, :, 0]]
        means = "  ".join(f"{mean:.1f}" for mean in figures[1:, :, 1].mean(axis=1))
        print_row(problem, [*cells, *PROBLEMS[problem][2:], means])


if __name__ == "__main__":
    main()
