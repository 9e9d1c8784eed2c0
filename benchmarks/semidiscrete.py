"""Are straight flows better if pairs come from a plan to the whole target instead of one between minibatches?

    OMP_NUM_THREADS=1 python benchmarks/semidiscrete.py --seeds 3

"exact" is FlowMatchingTransport with its defaults: 512 minibatches of 512 points, each with its optimal
assignment. "whole" solves one entropic problem, between 8 192 source points and all rows of the target, and
keeps the potentials of the target. They give every fresh source point its partner: a draw from its row of the
plan, by one softmax. With a narrow blur that is a semi-discrete pairing (Mousavi-Hosseini et al.,
arXiv:2509.25519), which has no bias of minibatches. "whole, cut short" stops the solver at a marginal error
of .03 in place of .001. Everything else, the number of pairs included, is equal.

Three problems: noise to 8 Gaussians and 8 Gaussians to moons (10 000 rows, toy_2d.py) with the exact
2-Wasserstein distance to a test sample, and scikit-learn's digits (1 400 rows, from noise) with the energy
distance to 397 held-out images in units of a pixel's deviation. Printed are mean and spread over the seeds by
the number of evaluations, the marginal error, the share of target rows that are never anyone's partner, and
CPU seconds. Results go to results/semidiscrete.csv, and what is there is not run again.
"""

import numpy as np
import torch
from _harness import ResultsFile, make_parser, print_row, spread, timed_fit, with_evaluations
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from toy_2d import draw_clouds

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus
from sklearn_nsgf._learning.paths import StraightPaths
from sklearn_nsgf.flow import Couplings, sinkhorn_potentials
from sklearn_nsgf.metrics import energy_distance, wasserstein_distance

N_EVALUATIONS = 2, 5, 10, 100
N_SOURCE = 8192
PROBLEMS = "digits", "gaussian → 8 gaussians", "8 gaussians → moons"
COLUMNS = "problem", "method", "seed", "evaluations", "distance", "error", "unused", "seconds"


class WholePlan(Couplings):
    """Straight paths from fresh source points to partners among all target rows."""

    def __init__(self, *samplers, tol, **options):
        super().__init__(*samplers, coupling="sinkhorn", **options)
        rng = np.random.default_rng(0)
        self.targets = torch.from_numpy(self.target.draw(self.target.n_rows, rng))
        sources = torch.from_numpy(self.source.draw(min(N_SOURCE, self.source.n_rows), rng))
        blur = self.coupling_options["blur"]
        potentials = sinkhorn_potentials(sources, self.targets, blur=blur, tol=tol, max_iter=1000)
        self.g, self.error = potentials.g, potentials.marginal_error.item()
        self.is_used = np.zeros(len(self.targets), dtype=bool)

    def __call__(self, seeds):
        return torch.stack([self._pairs(np.random.default_rng(seed)) for seed in seeds])

    def _pairs(self, rng):
        x = torch.from_numpy(self.source.draw(self.n_sources, rng))
        costs = torch.cdist(x, self.targets).square() / 2
        logits = (self.g - costs) / self.coupling_options["blur"] ** 2
        noise = torch.from_numpy(rng.gumbel(size=logits.shape).astype(np.float32))
        partners = (logits + noise).argmax(1)
        self.is_used[partners.numpy()] = True
        return torch.stack([x, self.targets[partners]], dim=1)


class WholePaths(StraightPaths):
    """Says that all blocks come from one plan, and keeps it."""

    plans = []
    tol = 0.001

    def make_blocks(self, stratum, n_points, device):
        options = {"n_points": n_points, "device": device, "n_jobs": self.n_jobs, "blur": self.blur}
        self.plans.append(WholePlan(stratum.source.sampler, stratum.target.sampler, tol=self.tol, **options))
        return self.plans[-1]


class WholeTransport(FlowMatchingTransport):
    """Flow matching with pairs of one plan to all target rows."""

    def _paths(self, space):
        return WholePaths(*super()._paths(space))


def samples_of(problem, seed):
    """Training samples, what is moved (None for own noise), and an answer's distance to a test sample."""
    if problem != "digits":
        samples, sources, test, _ = draw_clouds(problem, seed)
        return samples, sources[0], lambda points: wasserstein_distance(points, test)
    train, test = train_test_split(load_digits().data, test_size=397, random_state=seed)
    unit = np.sqrt(test.var(axis=0).mean())

    def distance(images):
        return energy_distance(np.clip(np.rint(images), 0, 16) / unit, test / unit)

    return (None, train), None, distance


def measure(results, problem, method, seed):
    keys = [(problem, method, seed, n) for n in N_EVALUATIONS]
    if all(key in results for key in keys):
        return
    samples, sources, distance = samples_of(problem, seed)
    options = {"random_state": seed, "standardize": problem != "digits"}
    kind = {"exact": FlowMatchingTransport, "NSGF++": NSGFPlusPlus}.get(method, WholeTransport)
    WholePaths.plans, WholePaths.tol = [], 0.03 if method == "whole, cut short" else 0.001
    est, seconds = timed_fit(kind(**options), *(each for each in samples if each is not None))
    error, unused = 0.0, 0.0
    if WholePaths.plans:
        error, unused = WholePaths.plans[0].error, 1 - WholePaths.plans[0].is_used.mean()
    for *key, n in keys:
        flow = with_evaluations(est, n)
        moved = flow.sample(2000, random_state=seed) if sources is None else flow.transform(sources)
        results.write(*key, n, distance(moved), error, unused, seconds)


def main():
    arguments = make_parser(__doc__, seeds=3).parse_args()
    results = ResultsFile(*COLUMNS, n_keys=4)
    print_row("", [f"{n} evaluations" for n in N_EVALUATIONS] + ["error", "unused", "CPU s"], width=16)
    for problem in PROBLEMS:
        for method in ("exact", "whole", "whole, cut short", "NSGF++"):
            for seed in range(arguments.seeds):
                measure(results, problem, method, seed)
            rows = np.array(
                [
                    [results[problem, method, seed, n] for n in N_EVALUATIONS]
                    for seed in range(arguments.seeds)
                ]
            )
            cells = [spread(rows[:, k, 0]) for k in range(len(N_EVALUATIONS))]
            cells += [f"{value:.2g}" for value in rows[:, 0, 1:].mean(axis=0)]
            print_row(f"{problem}: {method}", cells, width=16)


if __name__ == "__main__":
    main()
