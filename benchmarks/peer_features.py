"""What can this package and its peers be asked for as estimators? Every cell is something that was run.

    pip install POT geomloss pandas skada skops torchcfm ForestDiffusion
    python benchmarks/peer_features.py > docs/_peer_features.rst

Ten features are tried on two small samples of unequal size with each package, spelled as its documentation
spells them, each in a process of its own. Printed is the table of docs/peers.rst, in rst, with the versions.
"yes": it ran and the outcome was checked. "no": it raised, or the outcome was wrong; the reason stands below.
"part": some of it, or with code of one's own. "n/a": it is no estimator, on which the feature hangs.
"""

import argparse
import importlib.metadata
import io
import json
import pickle
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
import skops.io
import torch
from _harness import Torchcfm
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances_argmin
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator

import sklearn_nsgf
from sklearn_nsgf.domains import DomainKFold, stack_domains
from sklearn_nsgf.networks import make_network

ROWS = {
    "check_estimator": "``check_estimator``: passed / failed",
    "clone": "``clone`` keeps the parameters",
    "search": "``GridSearchCV``, samples of unequal size",
    "frames_in": "pandas in",
    "frames_out": "``set_output``, feature names out",
    "new_rows": "Moves new rows",
    "sample": "``sample(n)``",
    "units": "Data times 100: answer times 100",
    "file_size": "Pickle, 500 / 2 000 rows a side",
    "safe_file": "skops opens the file, no code runs",
}
rng = np.random.RandomState(0)
SOURCE, TARGET = rng.normal(size=(60, 2)), rng.normal([5, -3], [0.5, 2], size=(50, 2))
NEW = rng.normal(size=(7, 2))
TENSORS = torch.tensor(SOURCE), torch.tensor(TARGET)
FRAMES = [pd.DataFrame(rows, columns=["first", "second"]) for rows in (SOURCE, TARGET, NEW)]


class NoEstimatorError(Exception):
    """What the package has cannot be asked for the feature."""


@dataclass
class Peer:
    """How one package is used, and a probe for each row, which returns nothing if all is well."""

    make: Callable
    fit: Callable = lambda model, source, target: model.fit(source, target)
    move: Callable = lambda model, rows: model.transform(rows)
    draw: Callable = lambda model, n_rows: model.sample(n_rows)
    altered: dict = field(default_factory=dict)  # a parameter other than its default
    probes: dict = field(default_factory=dict)  # of rows for which the package is used in another way

    def estimator(self):
        model = self.make()
        if not hasattr(model, "fit"):
            raise NoEstimatorError
        return model

    search = estimator  # those with a `fit` have a probe of their own

    def fitted(self, clouds=(SOURCE, TARGET)):
        return self.fit(self.make(), *clouds)

    def check_estimator(self):
        statuses = [each["status"] for each in check_estimator(self.estimator(), on_fail=None, on_skip=None)]
        return f"{statuses.count('passed')} / {statuses.count('failed')}", ""

    def clone(self):
        copied = clone(self.estimator().set_params(**self.altered)).get_params()
        assert copied.items() >= self.altered.items(), copied

    def frames_in(self):
        assert np.isfinite(np.asarray(self.move(self.fitted(FRAMES[:2]), FRAMES[2]))).all()

    def frames_out(self):
        model = self.fit(self.estimator().set_output(transform="pandas"), *FRAMES[:2])
        columns = [self.move(model, FRAMES[2]).columns, model.get_feature_names_out()]
        assert all(list(names) == list(FRAMES[0].columns) for names in columns), columns

    def new_rows(self):
        model = self.fitted()
        moved, known = (np.asarray(self.move(model, rows)) for rows in (NEW, SOURCE))
        assert moved.shape == NEW.shape and np.isfinite(moved).all(), moved
        nearest = pairwise_distances_argmin(NEW, SOURCE)
        if np.allclose(moved - NEW, (known - SOURCE)[nearest], atol=1e-6):
            return "part", "each row is moved as the nearest one of the fit"

    def sample(self):
        drawn = np.asarray(self.draw(self.fitted(), 7))
        assert drawn.shape == (7, 2) and np.isfinite(drawn).all(), drawn

    def units(self):
        return compare(lambda c: self.move(self.fitted((c * SOURCE, c * TARGET)), c * NEW) / c)

    def file_size(self):
        clouds = [np.random.RandomState(0).normal(size=(2, n_rows, 2)) for n_rows in (500, 2000)]
        sizes = [len(pickle.dumps(self.fitted(pair))) / 1000 for pair in clouds]
        return "{:.0f} / {:.0f} kB".format(*sizes), ""

    def safe_file(self):
        """No type is trusted but the package's own."""
        model = self.fitted()
        data = skops.io.dumps(model)
        types = skops.io.get_untrusted_types(data=data)
        np.testing.assert_allclose(self.move(skops.io.loads(data, types), NEW), self.move(model, NEW))
        package = type(model).__module__.split(".")[0]
        if foreign := [name for name in types if name.split(".")[0] != package]:
            return "part", f"types of other packages to trust: {', '.join(foreign)}"


def compare(answer):
    """`answer(c)`, of data times c and divided by c, with that at c = 1."""
    reference, *others = (np.asarray(answer(c)) for c in (1.0, 100.0, 0.01))
    changes = [np.abs(other - reference).max() / np.abs(reference).max() for other in others]
    if not np.max(changes) < 0.01:
        return "no", "changes by {:.1%} times 100, by {:.1%} over 100".format(*changes)


def ours():
    small = {"n_flows": 1, "flow_batch_size": 32, "max_iter": 5, "hidden_layer_sizes": (8,)}
    make = partial(sklearn_nsgf.SinkhornFlowTransport, **small, random_state=0)

    def search():
        X, y, domains = stack_domains(SOURCE, TARGET)
        search = GridSearchCV(make(), {"n_steps": [2, 3]}, cv=DomainKFold(2), error_score="raise")
        with config_context(enable_metadata_routing=True):
            search.fit(X, y, sample_domain=domains)

    return Peer(make, altered={"n_steps": 3}, probes={"search": search})


def pot():
    from ot.da import SinkhornTransport

    search = GridSearchCV(SinkhornTransport(), {"reg_e": [0.5, 1.0]}, scoring=lambda *_: 0.0, cv=2)
    probes = {"search": lambda: search.fit(SOURCE, Xt=TARGET)}
    peer = Peer(SinkhornTransport, altered={"reg_e": 2.0}, probes=probes)
    peer.fit = lambda model, source, target: model.fit(Xs=source, Xt=target)
    peer.move = lambda model, rows: model.transform(Xs=rows)
    return peer


def skada():
    """The exact plan; both samples are stacked and `sample_domain` tells them apart."""
    from skada import OTMappingAdapter, make_da_pipeline
    from skada.metrics import PredictionEntropyScorer
    from skada.model_selection import SourceTargetShuffleSplit

    def fit(model, source, target):
        stack = pd.concat if isinstance(source, pd.DataFrame) else np.concatenate
        domains = np.repeat([1, -2], [len(source), len(target)])
        return model.fit(stack([source, target]), sample_domain=domains)

    def move(model, rows):
        return model.transform(rows, sample_domain=np.ones(len(rows), dtype=int), allow_source=True)

    def search():
        domains = np.repeat([1, -2], [len(SOURCE), len(TARGET)])
        labels = np.where(domains > 0, np.arange(len(domains)) % 2, -1)
        model, grid = make_da_pipeline(OTMappingAdapter(), LogisticRegression()), [None, "max"]
        options = {"scoring": PredictionEntropyScorer(), "cv": SourceTargetShuffleSplit(2)}
        search = GridSearchCV(model, {"otmappingadapter__norm": grid}, error_score="raise", **options)
        search.fit(np.concatenate([SOURCE, TARGET]), labels, sample_domain=domains)

    return Peer(OTMappingAdapter, fit, move, altered={"norm": "max"}, probes={"search": search})


def torchcfm():
    """The pairs are its own; network, training loop and integrator are those of the harness."""
    from torchcfm import conditional_flow_matching as its

    make = its.ExactOptimalTransportConditionalFlowMatcher
    own_loop = "part", "with a training loop and an integrator of one's own"

    def fit(model, *clouds):
        options = {"per_feature": True, "seconds": 0.1, "seed": 0, "learning_rate": 0.005}
        return Torchcfm("OT-CFM", make_network((2,), hidden_layer_sizes=(8,)), *clouds, **options)

    def safe_file():
        torch.save(peer.fitted().network.state_dict(), file := io.BytesIO())
        file.seek(0)
        torch.load(file, weights_only=True)
        return "part", "the tensors of a network, by torch.load(weights_only=True)"

    peer = Peer(make, fit)
    peer.probes = {
        "frames_in": lambda: make().sample_location_and_conditional_flow(*FRAMES[:2]),
        "new_rows": lambda: Peer.new_rows(peer) or own_loop,
        "sample": lambda: Peer.sample(peer) or own_loop,
        "units": lambda: compare(lambda c: its.OTPlanSampler("exact").get_map(*(c * x for x in TENSORS))),
        "safe_file": safe_file,
    }
    return peer


def geomloss():
    """A number for two samples, differentiable; it moves nothing by itself."""
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn")
    peer = Peer(lambda: loss)
    peer.probes = dict.fromkeys(("new_rows", "sample", "file_size", "safe_file"), peer.estimator)
    peer.probes["frames_in"] = lambda: loss(*FRAMES[:2])
    peer.probes["units"] = lambda: compare(lambda c: loss(*(c * x for x in TENSORS)) / c**2)
    return peer


def forest_flow():
    """Trees that generate rows like those given to the constructor, which is where it trains."""
    from ForestDiffusion import ForestDiffusionModel

    small = {"n_t": 4, "duplicate_K": 4, "n_estimators": 4, "n_jobs": 1}
    train = partial(ForestDiffusionModel, diffusion_type="flow", **small)

    def draw(model, n_rows):
        np.random.seed(0)
        return model.generate(batch_size=n_rows)

    peer = Peer(lambda: train(TARGET), draw=draw)
    peer.fit = lambda model, source, target: train(target)
    peer.move = lambda model, rows: draw(model, len(rows))
    peer.probes = {"new_rows": peer.estimator}
    return peer


PEERS = {"sklearn-nsgf": ours, "POT": pot, "skada": skada}
PEERS |= {"TorchCFM": torchcfm, "GeomLoss": geomloss, "ForestFlow": forest_flow}
DISTRIBUTIONS = "sklearn-nsgf POT skada torchcfm geomloss ForestDiffusion scikit-learn torch pandas skops"


def answer(title, row):
    """Verdict and reason of one cell, in this process."""
    warnings.simplefilter("ignore")
    try:
        peer = PEERS[title]()
        found = peer.probes.get(row, getattr(peer, row))()
        return found if isinstance(found, tuple) else ("yes", "")
    except Exception as error:
        kind, message = type(error).__name__, textwrap.shorten(str(error), 110, placeholder=" ...")
        other = {"NoEstimatorError": "n/a", "ModuleNotFoundError": "not installed"}
        return (other[kind], "") if kind in other else ("no", f"``{kind}: {message}``")


def answer_apart(title, row):
    """The same in a process of its own: its settings, prints and crashes stay there."""
    command = [sys.executable, __file__, "--cell", title, row]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "no", "not done after 300 s"
    return json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else ("no", "the process died")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        return print(f"\n{json.dumps(answer(*arguments.cell))}")
    print(".. csv-table::\n   :stub-columns: 1\n   :header: ,", ", ".join(arguments.packages) + "\n")
    reasons = []
    for row, feature in ROWS.items():
        answers = {title: answer_apart(title, row) for title in arguments.packages}
        print(f'   "{feature}",', ", ".join(verdict for verdict, _ in answers.values()), flush=True)
        said = [f"   - {title}: {reason}" for title, (_, reason) in answers.items() if reason]
        reasons += [feature, *said, ""] if said else []
    print("\nReasons:\n\n" + "\n".join(reasons))
    found = {each.name: each.version for each in importlib.metadata.distributions()}
    found["sklearn-nsgf"] = sklearn_nsgf.__version__
    versions = [f"{name} {found[name]}" for name in DISTRIBUTIONS.split() if name in found]
    print(f"Versions: {', '.join(versions)}.")


if __name__ == "__main__":
    main()
