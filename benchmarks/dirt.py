"""Do wrong values and heavy tails spoil a fit or cost time?

    python benchmarks/dirt.py [--seeds N]

Three cases, fitted with the defaults, 2 000 rows of each sample:

- "far": two clusters in one column, a normal column beside it, of which one target value is 1e6. The energy
  distance of moved new rows to good new rows of the target, over that of the fit without that value.
- "placeholder": 3 % of the second target column are -9999. The same ratio; new rows that arrive at -9999 are
  left out.
- "tail": generation of a log-normal column, exp(N(0, 2²)), beside that of a normal one: the ratio of CPU
  seconds, the 99 % quantile of 20 000 drawn rows over the true one, and warnings of problems that did not
  converge.

Printed is mean and spread over the seeds.
"""

import time
import warnings

import numpy as np
from _harness import make_parser, print_row, spread
from scipy.special import ndtri
from sklearn.exceptions import ConvergenceWarning

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.metrics import energy_distance

OURS = {"NSGF": SinkhornFlowTransport, "OT-CFM": FlowMatchingTransport, "NSGF++": NSGFPlusPlus}
N_ROWS, PLACEHOLDER = 2000, -9999.0


def target_rows(rng, n):
    return np.column_stack([rng.choice([-3, 3], n) + 0.3 * rng.normal(size=n), rng.normal(2, 0.5, n)])


def distances(estimator, seed):
    """Distances without wrong values, with one far value, and with placeholders."""
    rng = np.random.default_rng(seed)
    source, new = rng.normal(size=(2, N_ROWS, 2))
    good, new_target = target_rows(rng, N_ROWS), target_rows(rng, N_ROWS)
    far, gaps = good.copy(), good.copy()
    far[0, 1] = 1e6
    gaps[rng.permutation(N_ROWS)[: N_ROWS * 3 // 100], 1] = PLACEHOLDER
    unit, found = new_target.std(axis=0), []
    for target in (good, far, gaps):
        moved = estimator(random_state=seed).fit(source, target).transform(new)
        moved = moved[np.abs(moved[:, 1]) < abs(PLACEHOLDER) / 2]
        found.append(energy_distance(moved / unit, new_target / unit))
    return found


def tails(estimator, seed):
    """Ratio of seconds, ratio of 99 % quantiles, warnings."""
    X = np.random.default_rng(seed).normal(0, 2, size=(N_ROWS, 1))
    seconds, n_warnings = [], 0
    for rows in (X, np.exp(X)):
        start = time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            est = estimator(random_state=seed).fit(rows)
        seconds.append(time.process_time() - start)
        n_warnings += sum(issubclass(each.category, ConvergenceWarning) for each in caught)
    quantile = np.quantile(est.sample(20_000, random_state=seed), 0.99)
    return seconds[1] / seconds[0], quantile / np.exp(2 * ndtri(0.99)), n_warnings


def main():
    arguments = make_parser(__doc__, seeds=5).parse_args()
    warnings.simplefilter("ignore")
    print_row("", ["good", "far", "placeholder", "tail, s", "tail, q99", "unconverged"])
    for name, estimator in OURS.items():
        near = np.array([distances(estimator, seed) for seed in range(arguments.seeds)])
        far = np.array([tails(estimator, seed) for seed in range(arguments.seeds)])
        print_row(name, [*(spread(column, 4) for column in near.T), *(spread(column) for column in far.T)])


if __name__ == "__main__":
    main()
