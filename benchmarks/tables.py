"""Are mixed tables generated as well as by mixtures, copulas and boosted trees?

    python benchmarks/tables.py --data DIR [--tables adult,wine] [--methods NSGF,copula] [--csv FILE]
    python benchmarks/tables.py --data DIR --max-rows 100 --tables concrete,power,wine,california
    python benchmarks/tables.py --data DIR --transport

DIR holds the folder uci: adult, california housing, wine (both colours stacked), concrete and power plant.
Missing values of adult ("?") are a category of their own; rows of other tables with one are dropped, and so
are duplicates. Text columns are categories, the most frequent first, and columns of whole numbers integers.
At most --max-rows rows, and four fifths of a table, are drawn for each seed and trained on; a quarter as many
others, or 1 000 if there are, are held out.

The methods: "real" repeats the training rows (the floor); ours, with their defaults, and if it is named
"NSGF++ all steps", with early_stopping=False, which differs below 500 rows; "mixture" (Gaussian,
components and covariances by BIC) and "kernel" (Gaussian, bandwidth by cross-validated likelihood on at most
2 000 rows), both on standardised and one-hot columns, the largest entry being the category and integers
rounded; "copula" (Gaussian; normal scores with ties spread evenly, correlations of Ledoit and Wolf, the
training rows' quantiles); ForestFlow (ForestDiffusion) and FlowBDT (flowmatching-bdt), boosted trees with
their defaults, except that rows times noises are at most 50 000 and that where one-hot columns are more than
40, as for adult, categories are integers: their order in the table. A line says so.

Printed is mean and spread over the seeds, drawn against held-out rows if not said otherwise:
  energy   energy distance on columns standardised (by the training rows) or one-hot
  KS, TV   the largest Kolmogorov-Smirnov distance of a numeric column, total variation of a category
  zeros    the largest difference in the share of zeros, columns with at least 5 % zeros
  integer  share of whole numbers in the columns of whole numbers (1 where the table has integers)
  bounds   share of numbers between the smallest and the largest training value of their column
  AUC      of boosted trees that tell drawn from held-out rows, as many of each, in 5 folds; 0.5 is best
  useful   held-out AUC (adult) or R2 of boosted trees trained on drawn rows; beside it "real"
  closest  median distance of a drawn row to its closest training row, over that of a held-out row:
           about 1 is right, well below 1 is copying
  fit s, draw s   CPU seconds; everything runs in one process (set OMP_NUM_THREADS=1 for one thread)

With --transport one part of a table is moved to another without the column that tells them apart: men to
women, red to white wines, inland to coastal districts. Held-out rows are moved and compared with held-out
rows of the target; "real" is the target's training rows, "quantile" the map of each column alone, "linear"
POT's LinearTransport, for tables of numbers only.

With --csv raw values are appended to FILE, and what it holds already is not computed again.
"""

import csv
import time
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from _harness import make_parser, print_row, spread
from _tables import (
    FURTHER_GENERATORS,
    GENERATORS,
    MOVERS,
    Units,
    categories_of,
    limits,
    numbers_of,
    read_table,
    split,
)
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors

from sklearn_nsgf.metrics import energy_distance

TARGETS = {
    "concrete": "strength",
    "power": "output",
    "wine": "quality",
    "california": "median_house_value",
    "adult": "income",
}
PAIRS = {
    "wine": ("colour", "red", "white"),
    "california": ("ocean_proximity", "INLAND", "NEAR OCEAN"),
    "adult": ("sex", "Male", "Female"),
}
MEASURES = [*"energy KS TV zeros integer bounds AUC useful closest".split(), "fit s", "draw s"]
PEERS = {
    "ForestFlow": ("ForestDiffusion", "ForestDiffusion==1.0.6"),
    "FlowBDT": ("flowmatching_bdt", "flowmatching-bdt"),
}


def shares(frame, name):
    return frame[name].value_counts(normalize=True, sort=False)


def within_bounds(drawn, train):
    return np.mean([drawn[name].between(train[name].min(), train[name].max()).mean() for name in train])


def distances(train, test, drawn, seed):
    """What both modes measure. A measure that has no column is left out."""
    units, names, whole = Units(train), numbers_of(train), list(train.select_dtypes("int64"))
    zeros = [name for name in names if (train[name] == 0).mean() >= 0.05]
    found = {"energy": energy_distance(units.encode(drawn), units.encode(test))}
    found["KS"] = max(ks_2samp(drawn[name], test[name]).statistic for name in names)
    if categories := categories_of(train):
        found["TV"] = max((shares(drawn, each) - shares(test, each)).abs().sum() / 2 for each in categories)
    if zeros:
        found["zeros"] = ((drawn[zeros] == 0).mean() - (test[zeros] == 0).mean()).abs().max()
    if whole:
        found["integer"] = (drawn[whole] == drawn[whole].round()).to_numpy().mean()
    found["bounds"] = within_bounds(drawn[names], train[names])
    n = min(len(drawn), len(test))
    both = pd.concat([drawn[:n], test[:n]], ignore_index=True)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    judge = HistGradientBoostingClassifier(random_state=seed)
    found["AUC"] = cross_val_score(judge, both, np.repeat([0, 1], n), cv=folds, scoring="roc_auc").mean()
    return found


def usefulness(drawn, test, target, seed):
    """Of trees trained on drawn rows, for held-out rows."""
    X, y = drawn.drop(columns=target), drawn[target]
    new, truth = test.drop(columns=target), test[target]
    if y.dtype != "category":
        return r2_score(truth, HistGradientBoostingRegressor(random_state=seed).fit(X, y).predict(new))
    y, truth = y.cat.codes, truth.cat.codes
    if y.nunique() < 2:
        return 0.5
    model = HistGradientBoostingClassifier(random_state=seed).fit(X, y)
    return roc_auc_score(truth, model.predict_proba(new)[:, 1])


def closeness(train, test, drawn):
    units = Units(train)
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(units.encode(train))
    medians = [np.median(search.kneighbors(units.encode(rows))[0]) for rows in (drawn[: len(test)], test)]
    return medians[0] / medians[1]


def timed(fit, argument):
    """Answer of a fitted method, and CPU seconds."""
    times = [time.process_time()]
    answer = fit()
    times.append(time.process_time())
    drawn = answer(argument)
    times.append(time.process_time())
    return drawn, dict(zip(("fit s", "draw s"), np.diff(times), strict=True))


def generate(frame, name, method, seed, max_rows):
    train, test = split(frame, max_rows, seed)
    drawn, seconds = timed(
        partial((GENERATORS | FURTHER_GENERATORS)[method], train, seed), max(len(train), len(test))
    )
    drawn = drawn.sample(frac=1, random_state=seed, ignore_index=True)  # a mixture's are sorted
    found = distances(train, test, drawn, seed)
    found["useful"] = usefulness(drawn, test, TARGETS[name], seed)
    return found | {"closest": closeness(train, test, drawn)} | seconds


def part_of(frame, name, side=1):
    """Source (0) or target (1), without the column that tells them apart."""
    column, *values = PAIRS[name]
    return frame[frame[column] == values[side]].drop(columns=column)


def transport(frame, name, method, seed, max_rows):
    (source, new), (target, test) = (split(part_of(frame, name, side), max_rows, seed) for side in (0, 1))
    drawn, seconds = timed(partial(MOVERS[method], source, target, seed), new)
    return distances(target, test, drawn.reset_index(drop=True), seed) | seconds


def read_known(path):
    """Values of the file, by table, method, seed and measure."""
    if path is None or not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(t, m, int(s), measure): float(value) for t, m, s, measure, value in csv.reader(file)}


def append(path, *key, found):
    if path is not None:
        with path.open("a", newline="") as file:
            csv.writer(file).writerows([*key, measure, value] for measure, value in found.items())


def is_left_out(method, frame, is_transport):
    """Print why a method is left out, or what it is limited to."""
    package, name = PEERS.get(method, (None, None))
    if package and find_spec(package) is None:
        print(f"{method} is left out: pip install {name}")
        return True
    if is_transport and method == "linear" and categories_of(frame):
        print("linear is left out: the table has categories")
        return True
    if package:
        n_noises, codes = limits(frame)
        print(f"{method}: {n_noises} noises per row" + ", categories as integers" * codes)
    return False


def print_table(name, methods, arguments):
    """One line a method; values that the file holds are taken from there."""
    frame = read_table(name, arguments.data / "uci")
    run = transport if arguments.transport else generate
    train, _ = split(part_of(frame, name) if arguments.transport else frame, arguments.max_rows, seed=0)
    title = f"{name}, {len(train)} rows" + ", moved" * arguments.transport
    known = read_known(arguments.csv)
    methods = [method for method in methods if not is_left_out(method, train, arguments.transport)]
    print_row(title, MEASURES, width=14)
    for method in methods:
        for seed in range(arguments.seeds):
            if (title, method, seed, "energy") not in known:
                found = run(frame, name, method, seed, arguments.max_rows)
                append(arguments.csv, title, method, seed, found=found)
                known |= {(title, method, seed, measure): value for measure, value in found.items()}
        cells = [[known.get((title, method, s, m)) for s in range(arguments.seeds)] for m in MEASURES]
        print_row(method, ["" if None in cell else spread(cell) for cell in cells], width=14)
    print()


def main():
    parser = make_parser(__doc__, seeds=5, data="required")
    parser.add_argument("--transport", action="store_true", help="move one part of a table to another")
    parser.add_argument("--tables", help="of " + ",".join(TARGETS))
    parser.add_argument(
        "--methods", help="of " + ",".join(dict.fromkeys([*GENERATORS, *FURTHER_GENERATORS, *MOVERS]))
    )
    parser.add_argument("--max-rows", type=int, default=10_000, help="training rows, 10 000 by default")
    parser.add_argument("--csv", type=Path, help="file of raw values, read and appended to")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    methods, tables = (MOVERS, PAIRS) if arguments.transport else (GENERATORS, TARGETS)
    methods = arguments.methods.split(",") if arguments.methods else list(methods)
    for name in arguments.tables.split(",") if arguments.tables else tables:
        print_table(name, methods, arguments)


if __name__ == "__main__":
    main()
