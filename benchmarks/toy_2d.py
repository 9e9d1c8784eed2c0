"""Default parameters on five two-dimensional problems, beside OT-CFM given the same seconds.

    pip install torchcfm --no-deps
    python benchmarks/toy_2d.py --seeds 5

Every problem has 10 000 training rows a side (a Gaussian source is drawn afresh) and 5 000 test
rows, all with equal counts a mode; Gaussian test sources are a scrambled Sobol sample, for the same
reason: a mode with one per cent of the mass too much costs more than all else. The score is the
exact 2-Wasserstein distance between transported test sources and the test targets, divided by the
floor: the same distance from an independent target draw, also with equal counts. OT-CFM is
torchcfm's, with exact coupling of minibatches of 256, in the same standardised units, with the same
network, optimiser, schedule and averaging, for the seconds that our fit took.
"""

import argparse
import math
import time

import joblib
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats.qmc import MultivariateNormalQMC
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

from sklearn_nsgf import SinkhornFlowTransport
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


def fit_ours(source, target, seed):
    flow = SinkhornFlowTransport(random_state=seed)
    start = time.perf_counter()
    flow.fit(target) if source is None else flow.fit(source, target)
    return flow, time.perf_counter() - start


def fit_ot_cfm(source, target, seed, seconds):
    """Return a function of points and a number of Euler steps, and the iterations made."""
    scaling = FlowScaling(source, target, per_feature=True)
    target_rows = torch.tensor(scaling.encode(target, 1.0), dtype=torch.float32)
    source_rows = None
    if source is not None:
        source_rows = torch.tensor(scaling.encode(source, 0.0), dtype=torch.float32)
    learning_rate = SinkhornFlowTransport().learning_rate
    torch.manual_seed(seed)
    np.random.seed(seed)  # torchcfm draws from the plan with NumPy's global generator
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
    network = make_network(2, seed=seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / 250))
    n_iter, start = 0, time.perf_counter()
    while (spent := (time.perf_counter() - start) / seconds) < 1:
        rate = learning_rate * min(1.0, spent / 0.05 + 0.01) * (1 + math.cos(math.pi * spent)) / 2
        optimizer.param_groups[0]["lr"] = rate
        x1 = target_rows[torch.randint(len(target_rows), (256,))]
        if source_rows is None:
            x0 = torch.randn(256, 2)
        else:
            x0 = source_rows[torch.randint(len(source_rows), (256,))]
        t, x_t, v_t = matcher.sample_location_and_conditional_flow(x0, x1)
        loss = (network(t, x_t) - v_t).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        n_iter += 1

    @torch.no_grad()
    def transport(points, n_steps):
        Z = torch.tensor(scaling.encode(points, 0.0), dtype=torch.float32)
        return scaling.decode(odeint(average.module, Z, n_steps=n_steps).numpy(), 1.0, np.float64)

    return transport, n_iter


def run(name, seed):
    """Return one line of the table for a problem and a seed, and our flow's paths."""
    draw_source, draw_target = PROBLEMS[name]
    rng = np.random.default_rng(seed)
    target, test, independent = (draw_target(n, rng) for n in (N_TRAIN, N_TEST, N_TEST))
    if draw_source is None:
        source = None
        normal = MultivariateNormalQMC(np.zeros(2), rng=rng)
        test_source = target.mean(0) + target.std(0) * normal.random(N_TEST)
    else:
        source, test_source = draw_source(N_TRAIN, rng), draw_source(N_TEST, rng)
    flow, seconds = fit_ours(source, target, seed)
    ot_cfm, n_iter = fit_ot_cfm(source, target, seed, seconds)
    path = flow.integrate(test_source, return_path=True)
    answers = [independent, path[-1], ot_cfm(test_source, 10), ot_cfm(test_source, 100)]
    distances = joblib.Parallel(n_jobs=2)(
        joblib.delayed(wasserstein_distance)(answer, test) for answer in answers
    )
    return [*distances, seconds, n_iter], path, test


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
    n_seeds = parser.parse_args().seeds
    n_steps = SinkhornFlowTransport().n_steps
    print(f"W2 on {N_TEST} test points, mean ± standard deviation over {n_seeds} seeds")
    header = ["floor", f"ours, {n_steps} steps", "OT-CFM, 10", "OT-CFM, 100"]
    print(f"{'':26}" + "".join(f"{name:>17}" for name in header) + f"{'fit s':>12}{'its':>8}")
    ratios, figures = [], {}
    for name in PROBLEMS:
        rows = []
        for seed in range(n_seeds):
            row, path, test = run(name, seed)
            rows.append(row)
            figures.setdefault(name, (path, test))
        mean, std = np.mean(rows, axis=0), np.std(rows, axis=0)
        cells = "".join(f"{m:9.3f} ± {s:5.3f}" for m, s in zip(mean[:4], std[:4], strict=True))
        print(f"{name:26}{cells}{mean[4]:7.1f} ±{std[4]:4.1f}{mean[5]:8.0f}", flush=True)
        ratios.append(mean[1:4] / mean[0])
    mean_ratios = np.mean(ratios, axis=0)
    print(f"{'mean W2 / floor':26}{'':17}" + "".join(f"{ratio:17.3f}" for ratio in mean_ratios))
    draw(figures)
    print("wrote toy_2d.png")


if __name__ == "__main__":
    main()
