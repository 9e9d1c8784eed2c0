"""Are held-out red wines moved to white ones better than by POT's transports? Default parameters.

    python benchmarks/wine.py --data DIR --seeds 5

DIR holds winequality-red.csv and winequality-white.csv (UCI): the eleven measurements without the
quality. Duplicate rows are removed before a random 70/30 split of both sides, and each feature is
divided by its standard deviation over the white training wines.

Printed is the unbiased energy distance to the held-out white wines, a line a seed, and mean and spread: of
the held-out red ones as they are ("before"), of the white training wines ("floor"), and of the held-out red
ones moved by POT's linear map, by its SinkhornTransport and by SinkhornFlowTransport, which also moves the
rows of its fit. SinkhornTransport has the best reg of the grid and the best of its two maps to new points for
each seed, chosen on the score itself, out of those that give finite answers.
"""

import warnings

import numpy as np
import ot
from _harness import make_parser, print_row, spread, timed_fit

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.metrics import energy_distance

REGS = (0.01, 0.03, 0.1)
NAMES = ("before", "floor", "linear", "Sinkhorn", "ours", "ours, train")


def load(path):
    return np.unique(np.loadtxt(path, delimiter=",", usecols=range(11)), axis=0)


def split(rows, rng):
    order, n_train = rng.permutation(len(rows)), int(0.7 * len(rows))
    return rows[order[:n_train]], rows[order[n_train:]]


def best_sinkhorn_transport(red, white, new_red, new_white):
    """Return the best score of the grid, with its reg and its map to new points."""
    scores = {}
    for reg in REGS:
        transport = ot.da.SinkhornTransport(reg_e=reg, norm="median", max_iter=100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transport.fit(Xs=red, Xt=white)
            for transport.out_of_sample_map in ("continuous", "ferradans"):
                moved = transport.transform(Xs=new_red)
                if np.isfinite(moved).all():
                    scores[reg, transport.out_of_sample_map] = energy_distance(moved, new_white)
    best = min(scores, key=scores.get)
    return scores[best], *best


def run(wines, seed):
    """Scores, seconds of our fit, and the settings of POT's transport."""
    rng = np.random.default_rng(seed)
    (red, new_red), (white, new_white) = (split(colour, rng) for colour in wines)
    scale = white.std(axis=0)
    red, new_red, white, new_white = (part / scale for part in (red, new_red, white, new_white))
    linear = ot.da.LinearTransport(reg=1e-6).fit(Xs=red, Xt=white)
    sinkhorn, *best = best_sinkhorn_transport(red, white, new_red, new_white)
    flow, seconds = timed_fit(SinkhornFlowTransport(random_state=seed), red, white)
    answers = new_red, white, linear.transform(Xs=new_red), flow.transform(new_red), flow.transform(red)
    scores = [energy_distance(answer, new_white) for answer in answers]
    return [*scores[:3], sinkhorn, *scores[3:]], seconds, best


def main():
    arguments = make_parser(__doc__, seeds=5, data="required").parse_args()
    wines = [load(arguments.data / f"winequality-{colour}.csv") for colour in ("red", "white")]
    print_row("seed", [*NAMES, "fit s", "POT's settings"], 18, 6)
    rows = []
    for seed in range(arguments.seeds):
        scores, seconds, best = run(wines, seed)
        rows.append(scores)
        print_row(f"{seed}", [*(f"{score:.4f}" for score in scores), f"{seconds:.1f}", best], 18, 6)
    print_row("all", [spread(values, 4) for values in zip(*rows, strict=True)], 18, 6)


if __name__ == "__main__":
    main()
