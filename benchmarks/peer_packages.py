"""How `peer_features.py` uses each package, and the probes that only one package can be asked."""

import contextlib
import importlib.util
import io
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import torch
from peer_probes import (
    IMAGES,
    LABELS,
    NEW,
    SOURCE,
    TARGET,
    Answer,
    NotThisKind,
    Peer,
    answer_of,
    no,
    part,
    short,
    yes,
)
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

DOMAINS = np.repeat([1, -1], [len(SOURCE), len(TARGET)])


def is_near(moved, wanted):
    """Whether two clouds have about the same mean."""
    return bool(np.abs(np.mean(moved, axis=0) - np.mean(wanted, axis=0)).max() < 0.5)


class OurPeer(Peer):
    """This package."""

    title, module, distribution = "sklearn-nsgf", "sklearn_nsgf", "sklearn-nsgf"
    altered, grid = {"n_steps": 3}, {"n_steps": [2, 3]}

    def make(self, **parameters):
        from sklearn_nsgf import SinkhornFlowTransport

        small = {"n_flows": 1, "flow_batch_size": 32, "max_iter": 5, "hidden_layer_sizes": (8,)}
        return SinkhornFlowTransport(**{**small, "random_state": 0, **parameters})

    def stacked(self):
        from sklearn_nsgf.domains import stack_domains

        return stack_domains(SOURCE, TARGET)

    def pipeline_of_samples(self):
        X, y, domains = self.stacked()
        flow = make_pipeline(StandardScaler(), self.make())
        with config_context(enable_metadata_routing=True):
            moved = flow.fit(X, y, sample_domain=domains).transform(SOURCE)
        return yes() if is_near(moved, flow[0].transform(TARGET)) else no("misses the target")

    def search_of_samples(self):
        search = GridSearchCV(self.make(), self.grid, cv=2, error_score="raise").fit(SOURCE[:50], TARGET)
        return yes(f"best {search.best_params_}")

    def search_of_unequal(self):
        from sklearn_nsgf.domains import DomainKFold

        X, y, domains = self.stacked()
        with config_context(enable_metadata_routing=True):
            search = GridSearchCV(self.make(), self.grid, cv=DomainKFold(2), error_score="raise")
            search.fit(X, y, sample_domain=domains)
        folds = DomainKFold(2).split(X, sample_domain=domains)
        shares = [np.unique(domains[test], return_counts=True)[1].tolist() for _, test in folds]
        return yes(f"target and source rows of the folds: {shares}")

    def conditional(self):
        drawn = self.make(labels="condition").fit(SOURCE, LABELS).sample(5, labels=np.ones(5, dtype=int))
        return yes() if drawn.shape == (5, 2) else no(f"shape {drawn.shape}")

    def callbacks_of_fit(self):
        from sklearn.callback import ProgressBar, ScoringMonitor

        from sklearn_nsgf.metrics import make_transport_scorer

        monitor = ScoringMonitor(scoring={"energy": make_transport_scorer()})
        self.fit(self.make().set_callbacks(ProgressBar(), monitor), SOURCE, TARGET)
        return yes("scikit-learn's ProgressBar and ScoringMonitor") if monitor.get_logs() else no("empty log")

    def curve_of_fit(self):
        return yes(f"loss_curve_ of {len(self.fitted().loss_curve_)} values")

    def warm_start_of_fit(self):
        model = self.fitted(warm_start=True)
        n_iter = [model.n_iter_, self.fit(model, SOURCE, TARGET).n_iter_]
        return yes(f"n_iter_ {n_iter[0]}, then {n_iter[1]}") if n_iter[1] > n_iter[0] else no("starts afresh")

    def early_stopping_of_fit(self):
        n_iter = self.fitted(early_stopping=True, max_iter=2000, n_iter_no_change=2).n_iter_
        return yes(f"{n_iter} of 2 000 iterations") if n_iter < 2000 else no("all 2 000 iterations")

    def nan_error(self):
        in_source = super().nan_error()
        try:
            self.fit(self.make(), TARGET, np.where(SOURCE > 2, np.nan, SOURCE))
        except ValueError as error:
            return in_source._replace(reason=f"{in_source.reason}; {short(error)}")
        return no("NaN in the target is accepted")

    def metrics(self):
        from sklearn_nsgf.metrics import energy_distance, make_transport_scorer

        score = make_transport_scorer("sliced_wasserstein_distance")(self.fitted(), SOURCE, TARGET)
        return yes(f"energy distance {energy_distance(SOURCE, TARGET):.2g}, scorer {score:.2g}, and others")

    def plots(self):
        from sklearn_nsgf.inspection import TrajectoryDisplay

        display = TrajectoryDisplay.from_estimator(self.fitted(), NEW)
        return yes(type(display).__name__)

    def project(self):
        """pyproject.toml of the source tree, which needs no installation."""
        root = Path(importlib.util.find_spec(self.module).origin).parents[1]
        return tomllib.loads((root / "pyproject.toml").read_text())["project"], root

    def wheel(self):
        project, root = self.project()
        compiled = list((root / self.module).rglob("*.so"))
        needed = project["dependencies"]
        answer = no if compiled else yes
        return answer(f"from pyproject.toml; needs {', '.join(needed)}", f"{len(needed)} deps")

    def licence(self):
        return Answer(self.project()[0]["license"])


class PotPeer(Peer):
    """`ot.da`: its fit takes Xs and Xt."""

    title, module, distribution = "POT", "ot", "POT"
    altered, grid = {"reg_e": 2.0}, {"reg_e": [0.5, 1.0]}

    def make(self, **parameters):
        import ot.da

        return ot.da.SinkhornTransport(**parameters)

    def fit(self, model, source, target):
        return model.fit(Xs=source, Xt=target)

    def move(self, model, points):
        return model.transform(Xs=points)

    def back(self, model, points):
        return model.inverse_transform(Xt=points)

    def pipeline_of_samples(self):
        flow = make_pipeline(StandardScaler(), self.make())
        # In tens, so that scaling changes something.
        moved = flow.fit_transform(10 * SOURCE, sinkhorntransport__Xt=10 * TARGET)
        reached = is_near(moved, flow[0].transform(10 * TARGET))
        scaled = "the scaler reaches both" if reached else "the scaler does not reach the target"
        later = answer_of(lambda: yes(f"shape {flow.transform(NEW).shape}"))
        if reached and later.verdict == "yes":
            return yes()
        return part(f"fit_transform with sinkhorntransport__Xt=, {scaled}; transform: {later.reason}")

    def search_of_samples(self):
        search = GridSearchCV(self.make(), self.grid, scoring=lambda *_: 0.0, cv=2, error_score="raise")
        search.fit(SOURCE, Xt=TARGET)
        return yes()

    search_of_unequal = search_of_samples

    def device(self):
        tensors = [torch.tensor(cloud) for cloud in (SOURCE, TARGET, NEW)]
        moved = self.move(self.fit(self.make(), *tensors[:2]), tensors[2])
        return yes(f"no parameter; computes where the tensors are; on '{moved.device}'")

    def callbacks_of_fit(self):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.fitted(verbose=True)
        return part("verbose=True prints") if printed.getvalue() else no("verbose=True prints nothing")

    def curve_of_fit(self):
        return yes(f"log_['err'] of {len(self.fitted(log=True).log_['err'])} values")

    def early_stopping_of_fit(self):
        n_iter = self.fitted(log=True).log_["niter"]
        return part(f"at the tolerance of the marginals, {n_iter} of 1 000 iterations; no held-out rows")

    def metrics(self):
        import ot

        return yes(f"ot.emd2 {ot.emd2([], [], ot.dist(SOURCE, TARGET)):.3g}")

    def plots(self):
        import ot.plot

        ot.plot.plot2D_samples_mat(SOURCE, TARGET, self.fitted().coupling_)
        return yes("ot.plot.plot2D_samples_mat")


class SkadaPeer(Peer):
    """skada's exact transport plan; both samples are stacked and `sample_domain` tells them apart."""

    title, module, distribution = "skada", "skada", "skada"
    altered, grid = {"norm": "max"}, {"otmappingadapter__norm": [None, "max"]}

    def make(self, **parameters):
        from skada import OTMappingAdapter

        return OTMappingAdapter(**parameters)

    def fit(self, model, source, target):
        return model.fit(stack(source, target), sample_domain=np.repeat([1, -2], [len(source), len(target)]))

    def move(self, model, points):
        return model.transform(points, sample_domain=np.ones(len(points), dtype=int), allow_source=True)

    def labelled(self):
        """Both samples, with labels of the source alone."""
        return stack(SOURCE, TARGET), np.r_[LABELS, np.full(len(TARGET), -1)], DOMAINS

    def pipeline_of_samples(self):
        X, y, domains = self.labelled()
        flow = make_pipeline(StandardScaler(), self.make(), LogisticRegression())
        plain = np.unique(flow.fit(X, y, sample_domain=domains).predict(TARGET)).tolist()
        its_own = np.unique(self.domain_pipeline().fit(X, y, sample_domain=domains).predict(TARGET)).tolist()
        if -1 in its_own:
            return no(f"predicts {its_own}")
        return yes(f"its own make_da_pipeline predicts {its_own}, scikit-learn's {plain} (-1 masks labels)")

    def domain_pipeline(self):
        from skada import make_da_pipeline

        return make_da_pipeline(StandardScaler(), self.make(), LogisticRegression())

    def search(self, cv):
        from skada.metrics import PredictionEntropyScorer

        X, y, domains = self.labelled()
        options = {"scoring": PredictionEntropyScorer(), "cv": cv, "error_score": "raise"}
        return GridSearchCV(self.domain_pipeline(), self.grid, **options).fit(X, y, sample_domain=domains)

    def search_of_samples(self):
        from skada.model_selection import SourceTargetShuffleSplit

        return yes(f"with make_da_pipeline, best {self.search(SourceTargetShuffleSplit(2)).best_params_}")

    def search_of_unequal(self):
        from skada.model_selection import SourceTargetShuffleSplit, StratifiedDomainShuffleSplit

        names = []
        for splitter in (SourceTargetShuffleSplit, StratifiedDomainShuffleSplit):
            self.search(splitter(2, random_state=0))
            names.append(splitter.__name__)
        return yes(", ".join(names))

    def back(self, model, points):
        return model.ot_transport_.inverse_transform(Xt=points)

    def inverse(self):
        answer = super().inverse()
        return part("only that of POT, at ot_transport_") if answer.verdict == "yes" else answer

    def callbacks_of_fit(self):
        self.make().set_callbacks()
        return yes()

    def curve_of_fit(self):
        log = self.entropic_log()
        return part(f"EntropicOTMappingAdapter: ot_transport_.log_['err'] of {len(log['err'])} values")

    def early_stopping_of_fit(self):
        n_iter = self.entropic_log()["niter"]
        return part(f"EntropicOTMappingAdapter: at the tolerance, {n_iter} iterations; no held-out rows")

    def entropic_log(self):
        """POT's log of the other adapter; that of the exact plan has no iterations."""
        from skada import EntropicOTMappingAdapter

        return self.fit(EntropicOTMappingAdapter(), SOURCE, TARGET).ot_transport_.log_

    def use_memmap(self, source, target):
        # The file as it is: stacking would be a copy of our making.
        shape = (len(source) + len(target), source.shape[1])
        rows = np.memmap(source.filename, dtype=source.dtype, mode="r", shape=shape)
        self.make().fit(rows, sample_domain=np.repeat([1, -2], [len(source), len(target)]))
        return yes()

    def units(self):
        from skada import EntropicOTMappingAdapter

        exact = super().units()
        self.make = EntropicOTMappingAdapter
        entropic = answer_of(super().units)
        if exact.verdict == entropic.verdict:
            return entropic
        names = f"exact plan: {exact.verdict}; EntropicOTMappingAdapter: {entropic.verdict}"
        return part(f"{names}, {entropic.reason}")

    def metrics(self):
        from skada.metrics import PredictionEntropyScorer

        X, y, domains = self.labelled()
        flow = self.domain_pipeline().fit(X, y, sample_domain=domains)
        score = PredictionEntropyScorer()(flow, X, y, sample_domain=domains)
        return yes(f"for the classifier behind it: PredictionEntropyScorer {score:.2g}")


class SkorchPeer(Peer):
    """A regressor of a toy module. It learns from pairs: row i of the target is taken for that of row i."""

    title, module, distribution = "skorch", "skorch", "skorch"
    altered, grid = {"max_epochs": 4}, {"max_epochs": [1, 2]}

    def make(self, **parameters):
        from skorch import NeuralNetRegressor

        small = {"module": ToyModule, "max_epochs": 3, "verbose": 0, "train_split": None}
        return NeuralNetRegressor(**{**small, **parameters})

    def fit(self, model, source, target):
        n_pairs = min(len(source), len(target))
        return model.fit(source[:n_pairs], target[:n_pairs])

    def move(self, model, points):
        return model.predict(points)

    def check_estimator(self):
        # The checks' y has one dimension, which is nearest to one output.
        make = self.make
        self.make = lambda: make(module__n_outputs=1)
        return super().check_estimator()

    def pipeline_of_samples(self):
        make_pipeline(StandardScaler(), self.make()).fit(SOURCE[:50], TARGET).predict(NEW)
        return yes("as a regressor of pairs")

    def search_of_samples(self):
        GridSearchCV(self.make(), self.grid, cv=2, error_score="raise").fit(SOURCE[:50], TARGET)
        return yes("as a regressor of pairs")

    def search_of_unequal(self):
        try:
            cross_val_score(self.make(), SOURCE, TARGET, cv=2, error_score="raise")
        except ValueError as error:
            raise NotThisKind(f"learns from pairs: {short(error)}") from error
        return yes()

    def new_points(self):
        answer = super().new_points()
        return part("predict, learnt from pairs") if answer.verdict == "yes" else answer

    def sample(self):
        self.require("sample")

    def inverse(self):
        self.require("inverse_transform")

    def images(self):
        source, target = IMAGES
        model = self.make(module=torch.nn.Conv2d, module__in_channels=1, module__out_channels=1)
        model.set_params(module__kernel_size=3, module__padding=1)
        shape = model.fit(source, target).predict(source).shape
        return yes("with a module for them") if shape == source.shape else no(f"shape {shape}")

    def callbacks_of_fit(self):
        from skorch.callbacks import Callback, ProgressBar

        epochs = []

        class Counter(Callback):
            def on_epoch_end(self, net, **_):
                epochs.append(1)

        self.fitted(callbacks=[Counter(), ProgressBar()])
        return yes("its own, ProgressBar among them") if len(epochs) == 3 else no(f"{len(epochs)} calls")

    def curve_of_fit(self):
        return yes(f"history of {len(self.fitted().history[:, 'train_loss'])} epochs")

    def warm_start(self):
        model = self.fitted(warm_start=True)
        n_epochs = len(self.fit(model, SOURCE, TARGET).history)
        return (
            yes(f"history of {n_epochs} epochs after two fits of 3") if n_epochs == 6 else no("starts afresh")
        )

    def early_stopping_of_fit(self):
        from skorch.callbacks import EarlyStopping

        stopping = EarlyStopping(monitor="train_loss", patience=2)
        n_epochs = len(self.fitted(max_epochs=50, lr=0.0, callbacks=[stopping]).history)
        return yes(f"EarlyStopping, {n_epochs} of 50 epochs") if n_epochs < 50 else no("all epochs")

    def use_memmap(self, source, target):
        self.fit(self.make(max_epochs=1, batch_size=4096), source, target[:, :2])
        return yes()

    def safe_file(self):
        model = self.fitted()
        own, foreign = self.skops_round_trip(model)
        held = [name for name, value in model.__getstate__().items() if holds_pickle(value)]
        with tempfile.NamedTemporaryFile() as file:
            model.save_params(f_params=file.name, use_safetensors=True)
            loaded = self.make().initialize()
            self.move(loaded, NEW)
            loaded.load_params(f_params=file.name, use_safetensors=True)
        np.testing.assert_allclose(self.move(loaded, NEW), self.move(model, NEW))
        skops = f"skops has {len(own)} own and {len(foreign)} other types to trust, and a pickle in {held}"
        return part(f"the weights alone, as safetensors; {skops}")

    def frames_in(self, make_frame):
        from skorch.helper import DataFrameTransformer

        directly = answer_of(super().frames_in, make_frame)
        if directly.verdict == "yes":
            return directly
        model = make_pipeline(DataFrameTransformer(), self.make()).fit(make_frame(SOURCE[:50]), TARGET)
        model.predict(make_frame(NEW))
        return part(f"X through its DataFrameTransformer; as it is: {directly.reason}")

    def seeded_answer(self):
        torch.manual_seed(0)
        return super().seeded_answer()

    def seed(self):
        answer = super().seed()
        return answer if answer.verdict == "no" else part("no parameter: after torch.manual_seed")

    def metrics(self):
        score = self.fitted().score(SOURCE[:50], TARGET)
        return part(f"R2 of the pairs {score:.2g}, no distance of samples")


class ToyModule(torch.nn.Module):
    """One layer of any width that takes any float dtype, which is kinder than most modules."""

    def __init__(self, n_outputs=2):
        super().__init__()
        self.layer = torch.nn.LazyLinear(n_outputs)

    # skorch passes what its DataFrameTransformer makes as X.
    def forward(self, X):
        return self.layer(X.float()).to(X.dtype)


def holds_pickle(value):
    """Whether these are bytes that begin like a pickle."""
    return isinstance(value, bytes) and value.startswith(b"\x80")


def stack(source, target):
    """Rows of both, as frames if they are."""
    kind = type(source).__module__.split(".")[0]
    if kind == "pandas":
        import pandas as pd

        return pd.concat([source, target])
    if kind == "polars":
        import polars as pl

        return pl.concat([source, target])
    return np.concatenate([source, target])
