"""How fast does a minibatch's velocity approach the mean-field limit, and what does its bias cost?

    python benchmarks/rates.py            # the tables, results/rates.csv and rates.png
    python benchmarks/rates.py --quick    # the same with few sizes and repeats
    python benchmarks/rates.py --control  # learnt maps where particles follow the limit itself

Everything is in units of the target's root mean squared pairwise distance, and runs on one thread.

"velocity" takes n particles of a normal source and n of a normal target with other axes. The limit v is
known in closed form (`Gaussians`). It is compared with the particles' velocity v_n, at the particles and at
1 024 fresh points. "8 gaussians" and "digits" start at noise, and the limit is replaced by the velocity of
16 384 noises to as many points or to the 1 797 digits. "learnt" fits SinkhornFlowTransport to the normal
samples, with flows of n particles but as many particles in all. Its map at fresh points is compared with the
closed forms of the mean-field flow with the same steps, and of the optimal transport.

Printed are mean squared errors, as fractions of E|v|^2 or of the mean squared way of the optimal transport.
"bias^2" is that of the mean of v_n over samples, "variance" the rest. Both are estimated without bias: a
small bias^2 may come out negative. "affine bias^2" is the part of E[v_n | x] - v at the particles that is
affine in x: a network learns it, whatever the number of flows. Exponents p of n^p are fitted to n >= 256,
with 95 % intervals of a bootstrap over the repeats.
"""

import functools
import time
import unittest.mock
from pathlib import Path

import numpy as np
import torch
from _harness import ResultsFile, eight_gaussians, make_parser, print_row
from sklearn.datasets import load_digits

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.flow import (
    Trajectory,
    sinkhorn_potentials,
    sinkhorn_velocity,
    step_sizes,
    symmetric_potential,
)

RESULTS = Path(__file__).parent / "results" / "rates.csv"
BLURS = (0.05, 0.15, 0.5)
N_FRESH = 1024
N_POPULATION = 16384
N_BOOTSTRAP = 2000
FEWEST_FITTED = 256
# Rows of each sample of the fits, and particles of all flows of a fit together.
N_LEARNT = 32768
LEARNT_BLUR = 0.05
LEARNT_DIMENSIONS = (2, 10, 50)
LEARNT_ITERATIONS = 2000
# Solved to this L1 error of the marginals; below it float32 would not do.
TOL = 1e-4
QUANTITIES = ("error at particles", "error at fresh", "bias^2 at fresh", "variance at fresh", "affine bias^2")
LEARNT_QUANTITIES = ("error to the flow", "bias^2", "variance", "error to W2")


def root(matrix):
    """Square root of a symmetric matrix."""
    variances, axes = np.linalg.eigh(matrix)
    return (axes * np.sqrt(np.maximum(variances, 0))) @ axes.T


def projection_matrix(A, B, eps):
    """K of ``T(x) = b + K (x - a)``, the projection of the entropic plan of N(a, A) and N(b, B)."""
    half, identity = root(A), np.eye(len(A))
    inverse = np.linalg.inv(half)
    return inverse @ (root(half @ B @ half + eps**2 / 4 * identity) - eps / 2 * identity) @ inverse


class Gaussians:
    """A normal source and a normal target, and what the Sinkhorn flow from one to the other is in the limit.

    Variances along random axes fall from the largest to a 16th. They sum to 1/2 on either side, so that two
    points have a mean squared distance of 1. The means are 1/2 apart.
    """

    def __init__(self, d):
        rng = np.random.default_rng(d)
        variances = np.geomspace(1, 1 / 16, d)
        axes = [np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2)]
        self.A, self.B = ((each * variances / (2 * variances.sum())) @ each.T for each in axes)
        shift = rng.standard_normal(d)
        self.a, self.b = np.zeros(d), shift / (2 * np.linalg.norm(shift))
        self.d = d

    def draw_source(self, n, rng):
        return self.a + rng.standard_normal((n, self.d)) @ root(self.A)

    def draw_target(self, n, rng):
        return self.b + rng.standard_normal((n, self.d)) @ root(self.B)

    def whiten(self, x):
        return (x - self.a) @ np.linalg.inv(root(self.A))

    def velocity(self, blur):
        """Velocity at the source, a function of points."""
        D = projection_matrix(self.A, self.B, blur**2) - projection_matrix(self.A, self.A, blur**2)
        return lambda x: self.b - self.a + (x - self.a) @ D

    def flow(self, x, blur, n_steps):
        """Points of the source and where each step of the flow takes them, (n_steps + 1, ..., n, d)."""
        nodes, centre, A = [x], self.a, self.A
        for eta in step_sizes("harmonic", n_steps):
            D = projection_matrix(A, self.B, blur**2) - projection_matrix(A, A, blur**2)
            nodes.append(nodes[-1] + eta * (self.b - centre + (nodes[-1] - centre) @ D))
            step = np.eye(self.d) + eta * D
            centre, A = centre + eta * (self.b - centre), step @ A @ step
        return np.array(nodes)

    def transport(self, x):
        """The optimal transport without blur."""
        return self.b + (x - self.a) @ projection_matrix(self.A, self.B, 0.0)


def minibatch_velocity(x, y, blur):
    """Velocity of the Sinkhorn flow between two clouds, a function of points anywhere."""
    centre = y.mean(axis=0)
    x, y = (torch.tensor(each - centre, dtype=torch.float32) for each in (x, y))
    solved = sinkhorn_potentials(x, y, blur=blur, tol=TOL), symmetric_potential(x, blur=blur, tol=TOL)
    assert all(each.converged for each in solved)
    logits = [(each.g - c.square().sum(1) / 2) / blur**2 for c, each in zip((y, x), solved, strict=True)]

    def project(points, cloud, w):
        return torch.addmm(w, points / blur**2, cloud.T).softmax(1) @ cloud

    def velocity(points):
        blocks = torch.tensor(points - centre, dtype=torch.float32).split(256)
        moved = [project(block, y, logits[0]) - project(block, x, logits[1]) for block in blocks]
        return torch.cat(moved).double().numpy()

    return velocity


def check():
    """The closed form against the solver on a grid with normal weights, and velocities from potentials."""
    pair, blur = Gaussians(2), 0.3
    axis = np.linspace(-4.5, 4.5, 64)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    weights = []
    for mean, cov in ((pair.a, pair.A), (pair.b, pair.B)):
        density = np.exp(-((grid - mean) @ np.linalg.inv(cov) * (grid - mean)).sum(1) / 2)
        weights.append(torch.tensor(density / density.sum()))
    points = torch.tensor(grid)
    found = sinkhorn_velocity(points, points, blur=blur, a=weights[0], b=weights[1], tol=1e-9).v.numpy()
    truth = pair.velocity(blur)(grid)
    mass = weights[0].numpy()
    error = np.sqrt(mass @ np.square(found - truth).sum(1) / (mass @ np.square(truth).sum(1)))
    rng = np.random.default_rng(0)
    x, y = pair.draw_source(512, rng), pair.draw_target(512, rng)
    solved = sinkhorn_velocity(torch.tensor(x), torch.tensor(y), blur=blur, tol=1e-9).v.numpy()
    at_points = np.abs(minibatch_velocity(x, y, blur)(x) - solved).max()
    print(
        f"closed form against the solver on a grid {error:.1e}, potentials against velocities {at_points:.1e}"
    )
    assert error < 1e-6 and at_points < 1e-3


def mean_square(v):
    return np.square(v).sum(axis=1).mean()


def moments(gram, rng=None):
    """Error, bias^2 and variance from the inner products of the errors, of resampled repeats with `rng`."""
    n = len(gram)
    counts = np.ones(n)
    if rng is not None:
        while (counts := np.bincount(rng.integers(n, size=n), minlength=n)).max() == n:
            pass
    pairs = np.outer(counts, counts)
    np.fill_diagonal(pairs, 0)
    error, bias = counts @ np.diag(gram) / n, (pairs * gram).sum() / pairs.sum()
    return error, bias, error - bias


def measure(draw, truth, fresh, whiten, blur, n, n_repeats):
    """Inner products of the errors of minibatches, at particles (of each alone), fresh points, and affine."""
    at_fresh = truth(fresh)
    power, own, others, affine = mean_square(at_fresh), [], [], []
    for repeat in range(n_repeats):
        x, y = draw(n, np.random.default_rng([n, repeat]))
        velocity = minibatch_velocity(x, y, blur)
        errors = velocity(x) - truth(x)
        own.append(mean_square(errors) / power)
        others.append((velocity(fresh) - at_fresh).ravel() / np.sqrt(len(fresh) * power))
        basis = np.column_stack([np.ones(n), whiten(x)])
        affine.append((basis.T @ errors / n).ravel() / np.sqrt(power))
    return np.diag(own), *(np.array(each) @ np.array(each).T for each in (others, affine))


def quantities(grams, rng=None):
    own, others, affine = (moments(gram, rng) for gram in grams)
    return np.array([own[0], *others, affine[1]])


def exponents(sizes, draws):
    """Slope of log value over log n and its interval, for each quantity; nan if fewer than three sizes serve.

    `draws` has mean and bootstrap of every size, (size, 1 + bootstrap, quantity). A size serves if its
    interval is above zero.
    """
    answer = np.full((3, draws.shape[2]), np.nan)
    is_fitted = np.percentile(draws[:, 1:], 2.5, axis=1) > 0
    is_fitted &= (np.asarray(sizes) >= FEWEST_FITTED)[:, None]
    for quantity, rows in enumerate(is_fitted.T):
        if rows.sum() > 2:
            x, values = np.log(np.asarray(sizes)[rows]), draws[rows, :, quantity]
            slopes = (
                (x - x.mean()) @ np.log(np.where(values > 0, values, np.nan)) / np.square(x - x.mean()).sum()
            )
            answer[:, quantity] = slopes[0], *np.nanpercentile(slopes[1:], [2.5, 97.5])
    return answer


class Table:
    """Rows of the file, printed as they come."""

    def __init__(self):
        self.rows = []

    def add(self, key, names, n, repeat, values):
        self.rows += [
            (*key, n, repeat, name, f"{value:.6g}") for name, value in zip(names, values, strict=True)
        ]

    def report(self, key, names, sizes, draws, by_repeat):
        """One part: `draws` has mean and bootstrap of every size, (size, 1 + bootstrap, quantity)."""
        part, d, blur = key
        print(f"\n{part}, d = {d}, blur {blur}")
        print_row("", ["repeats", *names], 21, 12)
        for n, each, own in zip(sizes, draws, by_repeat, strict=True):
            low, high = np.percentile(each[1:], [2.5, 97.5], axis=0)
            for repeat, values in enumerate(own):
                self.add(key, values, n, repeat, values.values())
            for name, value in (("mean", each[0]), ("low", low), ("high", high)):
                self.add(key, names, n, name, value)
            print_row(f"n = {n}", [len(own), *(f"{value:.2e}" for value in each[0])], 21, 12)
        fitted = exponents(sizes, draws)
        for name, value in zip(("mean", "low", "high"), fitted, strict=True):
            self.add(key, names, "exponent", name, value)
        cells = [
            f"{mean:.2f} ({low:.2f}, {high:.2f})" if mean < np.inf else "-" for mean, low, high in fitted.T
        ]
        print_row("exponent", ["", *cells], 21, 12)

    def save(self, path):
        results = ResultsFile("part", "d", "blur", "n", "repeat", "quantity", "value", path=path)
        for row in self.rows:
            results.write(*row)


def by_name(names, grams):
    """Errors of the single repeats."""
    columns = (np.diag(gram) for gram, _ in zip(grams, names, strict=False))
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def compare(table, part, d, sizes, n_repeats, draw, limit, fresh, whiten):
    """Minibatches of all sizes against the limit, a function of the blur."""
    for blur in BLURS:
        truth, rng = limit(blur), np.random.default_rng(0)
        draws, by_repeat = [], []
        for n in sizes:
            grams = measure(draw, truth, fresh, whiten, blur, n, n_repeats(n))
            draws.append([quantities(grams), *(quantities(grams, rng) for _ in range(N_BOOTSTRAP))])
            by_repeat.append(by_name(QUANTITIES[:2], grams))
        table.report((part, d, blur), QUANTITIES, sizes, np.array(draws), by_repeat)


def velocities(table, sizes, n_repeats):
    for d in (2, 10, 50):
        pair = Gaussians(d)
        fresh = pair.draw_source(N_FRESH, np.random.default_rng(1))
        draw = lambda n, rng, pair=pair: (pair.draw_source(n, rng), pair.draw_target(n, rng))  # noqa: E731
        compare(table, "velocity", d, sizes, n_repeats, draw, pair.velocity, fresh, pair.whiten)


def data_sets():
    yield "8 gaussians", eight_gaussians(N_POPULATION, np.random.default_rng(0))
    yield "digits", load_digits().data


def real(table, sizes, n_repeats, n_population):
    for name, y in data_sets():
        y = y[:n_population] / np.sqrt(2 * y.var(axis=0).sum())
        rng, mean, std = np.random.default_rng(1), y.mean(axis=0), y.std(axis=0)
        x, fresh = (mean + std * rng.standard_normal((n, y.shape[1])) for n in (n_population, N_FRESH))

        def draw(n, rng, x=x, y=y):
            return tuple(each[rng.choice(len(each), n, replace=False)] for each in (x, y))

        def whiten(points, mean=mean, std=std):
            return ((points - mean) / np.where(std > 0, std, 1))[:, std > 0]

        fitting = sorted({min(n, len(y)) for n in sizes})
        limit = functools.partial(minibatch_velocity, x, y)
        compare(table, name, y.shape[1], fitting, n_repeats, draw, limit, fresh, whiten)


class Fits:
    """Fits to one pair of normal samples, and the inner products of their errors at fresh points."""

    def __init__(self, d, n_particles, max_iter, n_steps=5):
        self.pair, self.n_particles, self.max_iter, self.n_steps = (
            Gaussians(d),
            n_particles,
            max_iter,
            n_steps,
        )
        rng = np.random.default_rng(0)
        draws = self.pair.draw_source, self.pair.draw_target, self.pair.draw_source
        self.X, self.Y, fresh = (draw(N_LEARNT, rng) for draw in draws)
        self.fresh = fresh[: 4 * N_FRESH]
        self.answers = self.pair.flow(self.fresh, LEARNT_BLUR, n_steps)[-1], self.pair.transport(self.fresh)
        self.way = mean_square(self.answers[1] - self.fresh)
        difference = mean_square(self.answers[0] - self.answers[1]) / self.way
        print(f"\nmean-field flow against W2, d = {d}: {difference:.2e}")

    def grams(self, n, n_seeds):
        """Against the flow, and against the optimal transport."""
        errors = []
        for seed in range(n_seeds):
            est = SinkhornFlowTransport(
                blur=LEARNT_BLUR,
                n_steps=self.n_steps,
                n_flows=self.n_particles // n,
                flow_batch_size=n,
                max_iter=self.max_iter,
                frame="none",
                standardize=False,
                early_stopping=False,
                random_state=seed,
            )
            moved = est.fit(self.X, self.Y).transform(self.fresh)
            errors.append([(moved - answer).ravel() for answer in self.answers])
        stacks = (np.array(each) for each in zip(*errors, strict=True))
        return [stack @ stack.T / (len(self.fresh) * self.way) for stack in stacks]

    def exact_flow(self, x, y, *, n_steps, **options):
        """In the place of `particle_flow`: the limit, in the estimator's units."""
        centre, unit = self.X.mean(axis=0), np.sqrt((self.X.var(axis=0) + self.Y.var(axis=0)).mean() / 2)
        nodes = self.pair.flow(centre + unit * x.double().numpy(), LEARNT_BLUR, n_steps)
        errors = torch.zeros(n_steps, *x.shape[:-2])
        return Trajectory(None, torch.tensor((nodes - centre) / unit).float(), None, errors == 0, errors)


def learnt(table, sizes, n_seeds, dimensions, n_particles, max_iter):
    for d in dimensions:
        fits, rng = Fits(d, n_particles, max_iter), np.random.default_rng(0)
        draws, by_repeat = [], []
        for n in sizes:
            grams = fits.grams(n, n_seeds)

            def values(rng=None, grams=grams):
                to_flow, to_w2 = (moments(gram, rng) for gram in grams)
                return [*to_flow, to_w2[0]]

            draws.append([values(), *(values(rng) for _ in range(N_BOOTSTRAP))])
            by_repeat.append(by_name(LEARNT_QUANTITIES[::3], grams))
        table.report(("learnt", d, LEARNT_BLUR), LEARNT_QUANTITIES, sizes, np.array(draws), by_repeat)


def control():
    """What the learnt maps' errors would be without minibatches: those of the network and its training."""
    for d in LEARNT_DIMENSIONS:
        fits = Fits(d, N_LEARNT, LEARNT_ITERATIONS)
        with unittest.mock.patch("sklearn_nsgf.flow._blocks.particle_flow", fits.exact_flow):
            error, bias, variance = moments(fits.grams(1024, 3)[0])
        print(f"particles on the limit: error {error:.2e}, bias^2 {bias:.2e}, variance {variance:.2e}")


def draw_figure(rows, path):
    import matplotlib.pyplot as plt

    panels = [("velocity", 2), ("velocity", 10), ("velocity", 50), ("8 gaussians", 2), ("digits", 64)]
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.5), layout="constrained")

    def curve(axis, key, quantity, **style):
        """The means whose interval is above zero."""
        mean, low = (
            {row[3]: float(row[6]) for row in rows if (*row[:3], *row[4:6]) == (*key, which, quantity)}
            for which in ("mean", "low")
        )
        sizes = [n for n in mean if n != "exponent" and low[n] > 0]
        axis.loglog(sizes, [mean[n] for n in sizes], **style)

    for axis, (part, d) in zip(axes.flat, panels, strict=False):
        for k, blur in enumerate(BLURS):
            key = part, d, blur
            curve(axis, key, "error at particles", color=f"C{k}", marker="o", label=f"blur {blur:g}")
            curve(axis, key, "affine bias^2", color=f"C{k}", linestyle="--", marker=".")
        axis.set(title=f"{part}, d = {d}", xlabel="n", ylabel="fraction of E|v|²")
    axes[0, 0].legend(title="error; affine bias² dashed", loc="lower left", fontsize="small")
    for d in sorted({row[1] for row in rows if row[0] == "learnt"}):
        curve(axes[1, 2], ("learnt", d, LEARNT_BLUR), "error to the flow", marker="o", label=f"d = {d}")
    axes[1, 2].set(
        title=f"learnt map, blur {LEARNT_BLUR:g}", xlabel="flow_batch_size", ylabel="fraction of the way²"
    )
    axes[1, 2].legend()
    figure.savefig(path, dpi=90)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--control", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.control:
        return control()
    quick = arguments.quick
    start, table = time.perf_counter(), Table()
    check()
    sizes = (64, 256, 1024, 4096) if quick else (64, 256, 1024, 4096, 16384)

    def n_repeats(n):
        return min(8, max(2, 4096 // n)) if quick else min(32, max(3, 32768 // n))

    velocities(table, sizes, n_repeats)
    real(table, sizes[:-1], n_repeats, N_POPULATION // (8 if quick else 1))
    if quick:
        learnt(table, (64, 1024), 2, (2,), n_particles=4096, max_iter=200)
    else:
        learnt(table, sizes[:-1], 3, LEARNT_DIMENSIONS, N_LEARNT, LEARNT_ITERATIONS)
    seconds, path = time.perf_counter() - start, RESULTS.with_stem("rates_quick" if quick else "rates")
    table.save(path)
    draw_figure(table.rows, "rates.png")
    print(f"\nwrote {path} and rates.png after {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main()
