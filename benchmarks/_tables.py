"""Mixed tables, their rows as numbers, and the methods that benchmarks/tables.py compares on them."""

import io
from contextlib import redirect_stderr
from functools import partial

import joblib
import numpy as np
import ot
import pandas as pd
from scipy.stats import norm
from sklearn.covariance import ledoit_wolf
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport

COLUMNS = {
    "adult": "age workclass weight education years marital occupation relationship race sex gain loss hours "
    "country income",
    "wine": "acidity volatile citric sugar chlorides free total density pH sulphates alcohol quality",
    "concrete": "cement slag ash water plasticizer coarse fine age strength",
    "power": "temperature vacuum pressure humidity output",
}
MAX_PAIRS, MAX_ONE_HOT = 50_000, 40


def read_table(name, folder):
    """Frame with categories, integers and floats."""
    read = partial(pd.read_csv, header=None, names=COLUMNS.get(name, "").split(), skipinitialspace=True)
    if name == "adult":
        frame = pd.concat([read(folder / f"adult-{part}.csv") for part in ("train", "test")])
        frame["income"] = frame["income"].str.rstrip(".")
    elif name == "wine":
        colours = ("red", "white")
        frame = pd.concat([read(folder / f"winequality-{c}.csv").assign(colour=c) for c in colours])
    elif name == "california":
        frame = pd.read_csv(folder / "california_housing.csv")
    else:
        file = {"concrete": "concrete.txt", "power": "power-plant.txt"}[name]
        frame = read(folder / file, sep=r"\s+")
    frame = frame.dropna().drop_duplicates(ignore_index=True)
    for column, values in frame.items():
        if not pd.api.types.is_numeric_dtype(values):
            frame[column] = pd.Categorical(values, categories=values.value_counts().index)
        elif (values == values.round()).all():
            frame[column] = values.astype("int64")
    return frame


def split(frame, max_rows, seed):
    """Training rows, and held-out rows: a quarter as many, or 1 000 if there are more of them."""
    frame = frame.sample(frac=1, random_state=seed, ignore_index=True)
    n_train = min(len(frame) * 4 // 5, max_rows)
    n_test = max(-(-n_train // 4), 1000)
    return frame[:n_train], frame[n_train : n_train + n_test].reset_index(drop=True)


def categories_of(frame):
    return list(frame.select_dtypes("category"))


def numbers_of(frame):
    return list(frame.select_dtypes("number"))


def to_numbers(frame):
    """Array in which a category is its code."""
    codes = {name: frame[name].cat.codes for name in categories_of(frame)}
    return frame.assign(**codes).to_numpy(float)


def from_numbers(rows, like):
    """Frame with the columns of `like`; integers and codes are rounded."""
    frame = pd.DataFrame(rows, columns=like.columns)
    for name, kind in like.dtypes.items():
        if kind == "category":
            codes = frame[name].round().clip(0, len(kind.categories) - 1).astype(int)
            frame[name] = pd.Categorical.from_codes(codes, dtype=kind)
        elif kind.kind == "i":
            frame[name] = frame[name].round().astype(kind)
    return frame


class Units:
    """Rows in which numbers are standardised and categories one-hot; `codes` makes them numbers."""

    def __init__(self, train, codes=False):
        self.like, self.codes = train, codes
        self.names = list(train) if codes else numbers_of(train)
        numbers = to_numbers(train) if codes else train[self.names].to_numpy(float)
        self.mean, self.std = numbers.mean(axis=0), np.maximum(numbers.std(axis=0), 1e-12)

    def encode(self, frame):
        if self.codes:
            return (to_numbers(frame) - self.mean) / self.std
        # Numbers come first.
        rows = pd.get_dummies(frame[self.names + categories_of(self.like)], dtype=float).to_numpy(float)
        numbers, one_hot = np.split(rows, [len(self.names)], axis=1)
        return np.hstack([(numbers - self.mean) / self.std, one_hot])

    def decode(self, rows):
        columns = dict(zip(self.names, (rows[:, : len(self.names)] * self.std + self.mean).T, strict=True))
        start = len(self.names)
        for name in () if self.codes else categories_of(self.like):
            end = start + len(self.like[name].cat.categories)
            columns[name], start = rows[:, start:end].argmax(axis=1), end
        return from_numbers(np.column_stack([columns[name] for name in self.like]), self.like)


def fit_ours(estimator, train, seed, **options):
    est = estimator(random_state=seed, **options).set_output(transform="pandas").fit(train)
    return lambda n: est.sample(n, random_state=seed)


def fit_mixture(train, seed):
    units = Units(train)
    rows = units.encode(train)
    grid = [(kind, n) for kind in ("full", "diag") for n in (1, 2, 4, 8, 16)]
    models = [GaussianMixture(n, covariance_type=kind, reg_covar=1e-3, random_state=seed) for kind, n in grid]
    best = min((model.fit(rows) for model in models), key=lambda model: model.bic(rows))
    return lambda n: units.decode(best.sample(n)[0])


def fit_kernel(train, seed):
    units = Units(train)
    rows = units.encode(train)
    search = GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.03, 1, 8)}, cv=3)
    model = search.fit(rows[:2000]).best_estimator_.fit(rows)
    return lambda n: units.decode(model.sample(n, random_state=seed))


def shares_below(values, sample, rng):
    """Share of the sample below each value, ties spread evenly."""
    first, last = (np.searchsorted(np.sort(sample), values, side) for side in ("left", "right"))
    half = 0.5 / len(sample)
    return np.clip(rng.uniform(first, last) / len(sample), half, 1 - half)


def quantiles(shares, sample):
    return np.sort(sample)[(shares * len(sample)).astype(int)]


def fit_copula(train, seed):
    rng = np.random.default_rng(seed)
    columns = to_numbers(train).T
    scores = norm.ppf([shares_below(values, values, rng) for values in columns])
    covariance = ledoit_wolf(scores.T)[0]

    def draw(n):
        normal = rng.multivariate_normal(np.zeros(len(columns)), covariance, size=n).T
        shares = norm.cdf(normal / np.sqrt(np.diag(covariance))[:, np.newaxis])
        return from_numbers(np.column_stack(list(map(quantiles, shares, columns))), train)

    return draw


def limits(train):
    """Noises per row for boosted trees, and whether categories are numbers."""
    n_one_hot = sum(train[name].nunique() for name in categories_of(train))
    return int(np.clip(MAX_PAIRS // len(train), 1, 100)), n_one_hot > MAX_ONE_HOT


def fit_forest(train, seed):
    from ForestDiffusion import ForestDiffusionModel

    n_noises, codes = limits(train)
    # Its one-hot columns are found by a prefix, which goes wrong from the eleventh column on.
    first = categories_of(train)
    like = train[first + numbers_of(train)].copy()
    for name in first:
        like[name] = like[name].cat.remove_unused_categories()
    sizes = [np.inf if codes else len(like[name].cat.categories) for name in first]
    model = ForestDiffusionModel(
        to_numbers(like),
        duplicate_K=n_noises,
        cat_indexes=[i for i, size in enumerate(sizes) if 2 < size < np.inf],
        bin_indexes=[i for i, size in enumerate(sizes) if not 2 < size < np.inf],
        int_indexes=[i for i, kind in enumerate(like.dtypes) if kind == "int64"],
        n_jobs=1,
        nthread=1,
        seed=seed,
    )
    clean = model.clean_onehot_data
    model.clean_onehot_data = lambda X: clean(X).copy()  # pandas 3 gives arrays that cannot be rounded
    return lambda n: from_numbers(model.generate(batch_size=n), like)[list(train)].astype(train.dtypes)


def fit_bdt(train, seed):
    from flowmatching_bdt import FlowMatchingBDT

    n_noises, codes = limits(train)
    units = Units(train, codes=codes)
    np.random.seed(seed)  # it draws from NumPy's global generator
    with joblib.parallel_config("sequential"), redirect_stderr(io.StringIO()):  # progress bars
        model = FlowMatchingBDT(n_duplicates=n_noises).fit(units.encode(train))
    return lambda n: units.decode(model.predict(n))


def move_ours(estimator, source, target, seed):
    return estimator(random_state=seed).set_output(transform="pandas").fit(source, target).transform


def move_quantiles(source, target, seed):
    rng = np.random.default_rng(seed)
    pairs = list(zip(to_numbers(source).T, to_numbers(target).T, strict=True))

    def move(rows):
        columns = zip(to_numbers(rows).T, pairs, strict=True)
        moved = [quantiles(shares_below(values, a, rng), b) for values, (a, b) in columns]
        return from_numbers(np.column_stack(moved), target)

    return move


def move_linearly(source, target, seed):
    units = Units(target)
    transport = ot.da.LinearTransport(reg=1e-6).fit(Xs=units.encode(source), Xt=units.encode(target))
    return lambda rows: units.decode(transport.transform(Xs=units.encode(rows)))


OURS = {"NSGF": SinkhornFlowTransport, "OT-CFM": FlowMatchingTransport, "NSGF++": NSGFPlusPlus}
GENERATORS = {
    "real": lambda train, seed: lambda n: train,
    **{name: partial(fit_ours, estimator) for name, estimator in OURS.items()},
    "mixture": fit_mixture,
    "kernel": fit_kernel,
    "copula": fit_copula,
    "ForestFlow": fit_forest,
    "FlowBDT": fit_bdt,
}
# Run only if they are named.
FURTHER_GENERATORS = {"NSGF++ all steps": partial(fit_ours, NSGFPlusPlus, early_stopping=False)}
MOVERS = {
    "nothing": lambda source, target, seed: lambda rows: rows,
    "real": lambda source, target, seed: lambda rows: target,
    **{name: partial(move_ours, estimator) for name, estimator in OURS.items()},
    "quantile": move_quantiles,
    "linear": move_linearly,
}
