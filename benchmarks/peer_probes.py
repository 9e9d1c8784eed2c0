"""The probes of `peer_features.py` that all packages share, and what runs each one apart from the rest."""

import gc
import importlib.metadata
import importlib.util
import io
import multiprocessing
import os
import pickle
import resource
import signal
import tempfile
import textwrap
import warnings
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import torch
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

rng = np.random.RandomState(0)
SOURCE = rng.normal(size=(60, 2))
TARGET = rng.normal([5, -3], [0.5, 2], size=(50, 2))
NEW = rng.normal(size=(7, 2))
LABELS = np.arange(60) % 2
IMAGES = rng.normal(size=(2, 16, 1, 8, 8)).astype(np.float32)
COLUMNS = ["first", "second"]

# Two layouts of 256 MiB: many rows, and rows so long that even a quadratic method can hold their pairs.
MEMMAP_SHAPES = {"many rows": (2**20, 64), "few long rows": (2**8, 2**18)}
# Less than the half of the file that is the source, so that no copy of it fits.
MEMORY_ALLOWED = 96 * 2**20


class Answer(NamedTuple):
    """One cell: what was found, why, and a figure if there is one."""

    verdict: str
    reason: str = ""
    figure: str = ""

    @property
    def cell(self):
        """Text of the cell."""
        return ", ".join(filter(None, [self.verdict, self.figure]))


class NotThisKind(Exception):
    """The feature makes no sense for this kind of tool."""


class NotTried(Exception):
    """Something that the probe needs is not here."""


def yes(reason="", figure=""):
    """The feature was there and worked."""
    return Answer("yes", reason, figure)


def part(reason, figure=""):
    """Some of the feature worked, or all of it with code of one's own."""
    return Answer("part", reason, figure)


def no(reason, figure=""):
    """The feature was looked for and failed."""
    return Answer("no", reason, figure)


def short(error):
    """Type of an exception and the beginning of its message, on one line."""
    message = textwrap.shorten(str(error), 110, placeholder=" ...")
    return type(error).__name__ + (f": {message}" if message else "")


def answer_of(probe, *arguments):
    """Result of a probe; an exception is an answer too."""
    try:
        return probe(*arguments)
    except NotThisKind as error:
        return Answer("n/a", str(error))
    except NotTried as error:
        return Answer("not tried", str(error))
    except Exception as error:
        return no(short(error))


def isolated(probe, *arguments, seconds=60, quiet=True):
    """`answer_of` in a process of its own: its memory, global settings, prints and crashes stay there."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work():
        if quiet:
            warnings.simplefilter("ignore")
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
        sender.send(answer_of(probe, *arguments))

    with warnings.catch_warnings():
        # Python 3.12 and later warn that threads do not survive a fork; none of ours has work to do.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = context.Process(target=work)
        process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            process.kill()
            return no(f"not done after {seconds} s")
        return receiver.recv()
    except EOFError:
        process.join()
        return no(f"the process died: {signal.Signals(-process.exitcode).name}")
    finally:
        process.join()


class Peer:
    """How one package is used, and the probes; one method for each row of the table.

    Subclasses spell `make`, `fit`, `move` and `back` as the package's documentation does, and replace the
    probes of features that the package spells otherwise.
    """

    title = module = distribution = ""
    # A parameter other than its default, and a grid of two.
    altered, grid = {}, {}

    def make(self, **parameters):
        """A new, small model."""
        raise NotImplementedError

    def fit(self, model, source, target):
        """Learn from two samples; return the model."""
        return model.fit(source, target)

    def move(self, model, points):
        """Transport points of the source."""
        return model.transform(points)

    def back(self, model, points):
        """Transport points of the target."""
        return model.inverse_transform(points)

    def draw(self, model, n_samples):
        """Generate points."""
        return model.sample(n_samples)

    def fitted(self, **parameters):
        """A model of the two small clouds."""
        return self.fit(self.make(**parameters), SOURCE, TARGET)

    def require(self, *names):
        """The features that hang on a method make no sense without it."""
        model = self.make()
        for name in names:
            if not hasattr(model, name):
                raise NotThisKind(f"{type(model).__name__} has no {name}")

    def base_estimator(self):
        """Of scikit-learn, not a class of the same name."""
        model = self.make()
        if isinstance(model, BaseEstimator):
            return yes()
        bases = [f"{base.__module__}.{base.__name__}" for base in type(model).__mro__[1:-1]]
        return no(f"{type(model).__name__} inherits {', '.join(bases[-2:]) or 'nothing'}")

    def check_estimator(self):
        """All of scikit-learn's checks."""
        self.require("fit")
        results = check_estimator(self.make(), on_fail=None, on_skip=None)
        statuses = [result["status"] for result in results]
        passed, failed = statuses.count("passed"), statuses.count("failed")
        answer = no if failed else yes
        skipped = f", {statuses.count('skipped')} skipped" if "skipped" in statuses else ""
        return answer(f"{passed} passed, {failed} failed{skipped}", f"{passed} / {failed}")

    def clone(self):
        """An altered parameter survives."""
        self.require("get_params")
        copied = clone(self.make(**self.altered)).get_params()
        lost = {name for name, value in self.altered.items() if copied[name] != value}
        return no(f"lost {lost}") if lost else yes()

    def pipeline(self):
        """A scaler before it reaches both samples."""
        self.require("fit")
        return self.pipeline_of_samples()

    def grid_search(self):
        """Over one parameter, two values, two folds."""
        self.require("fit")
        return self.search_of_samples()

    def unequal_folds(self):
        """60 source rows and 50 target rows, every fold with its share of both."""
        self.require("fit")
        return self.search_of_unequal()

    def set_output(self):
        """A DataFrame comes back."""
        self.require("fit")
        import pandas as pd

        model = self.make().set_output(transform="pandas")
        frames = (pd.DataFrame(cloud, columns=COLUMNS) for cloud in (SOURCE, TARGET))
        moved = self.move(self.fit(model, *frames), pd.DataFrame(NEW, columns=COLUMNS))
        return yes() if list(moved.columns) == COLUMNS else no(f"columns {list(moved.columns)}")

    def feature_names_out(self):
        """One name a column."""
        self.require("fit")
        return yes(f"{list(self.fitted().get_feature_names_out())}")

    def metadata_routing(self):
        """`sample_domain` can be requested by `fit`."""
        self.require("fit")
        model = self.make()
        with config_context(enable_metadata_routing=True):
            if not hasattr(model, "set_fit_request"):
                return no("fit takes no metadata that could be requested")
            routing = str(model.set_fit_request(sample_domain=True).get_metadata_routing())
        return yes(routing) if "sample_domain" in routing else no(f"the request is lost: {routing}")

    def new_points(self):
        """Rows that the fit has not seen."""
        return self.map_of_new(self.move, SOURCE, NEW)

    def map_of_new(self, transport, known, new):
        """Whether `new` rows are moved, and not just as the nearest of those that the fit knows."""
        model = self.fitted()
        moved = np.asarray(transport(model, new))
        if moved.shape != new.shape or not np.isfinite(moved).all():
            return no(f"shape {moved.shape}, finite {np.isfinite(moved).all()}")
        nearest = ((new[:, None] - known) ** 2).sum(axis=-1).argmin(axis=1)
        as_nearest = new + np.asarray(transport(model, known))[nearest] - known[nearest]
        if np.allclose(moved, as_nearest, atol=1e-6):
            return part("each point is moved as the nearest training row")
        return yes()

    def sample(self):
        """Seven new points."""
        drawn = np.asarray(self.draw(self.fitted(), 7))
        return yes() if drawn.shape == (7, 2) and np.isfinite(drawn).all() else no(f"shape {drawn.shape}")

    def inverse(self):
        """New points of the target."""
        return self.map_of_new(self.back, TARGET, TARGET[:7] + NEW / 10)

    def images(self):
        """(16, 1, 8, 8) in and out."""
        source, target = IMAGES
        moved = self.move(self.fit(self.make(), source, target), source)
        return yes() if moved.shape == source.shape else no(f"shape {moved.shape}")

    def conditional(self):
        """Points of a class that is asked for."""
        self.require("sample")

    def device(self):
        """Whether `device` reaches the library below: without a GPU, asking for one must fail there."""
        self.fitted(device="cpu")
        try:
            self.fitted(device="cuda")
        except (RuntimeError, AssertionError, ValueError) as error:
            return yes(f"device='cpu' runs, device='cuda' without a GPU: {short(error)}")
        return no("device='cuda' is ignored without a GPU")

    def callbacks(self):
        """Whatever tells of the progress of a fit."""
        self.require("fit")
        return self.callbacks_of_fit()

    def curve(self):
        """The losses of a fit stay readable."""
        self.require("fit")
        return self.curve_of_fit()

    def warm_start(self):
        """A second fit goes on from the first."""
        self.require("fit")
        model = self.make()
        if "warm_start" not in model.get_params():
            return no("no parameter warm_start")
        return self.warm_start_of_fit()

    def early_stopping(self):
        """The fit ends before its bound."""
        self.require("fit")
        return self.early_stopping_of_fit()

    def partial_fit(self):
        """Two batches, one after the other."""
        self.require("fit")
        model = self.make()
        for rows in (slice(0, 25), slice(25, 50)):
            model.partial_fit(SOURCE[rows], TARGET[rows])
        self.move(model, NEW)
        return yes()

    def memmap(self):
        """256 MiB on disk, with too little memory for a copy of its half."""
        reasons = []
        for name, shape in MEMMAP_SHAPES.items():
            answer = isolated(self.fit_memmap, shape)
            if answer.verdict != "no":
                return answer if not reasons else part(f"only {name}: {reasons[0]}")
            reasons.append(f"{name}: {answer.reason}")
        return no("; ".join(reasons))

    def fit_memmap(self, shape):
        """Fit on the two halves of a file under a limit of the memory."""
        with tempfile.NamedTemporaryFile() as file:
            block = np.random.RandomState(0).normal(size=(64, shape[1])).astype(np.float32)
            for _ in range(shape[0] // len(block)):
                file.write(block.tobytes())
            file.flush()
            del block
            gc.collect()
            rows = np.memmap(file.name, dtype=np.float32, mode="r", shape=shape)
            half = shape[0] // 2
            status = Path("/proc/self/status").read_text().split("VmData:")[1]
            limit = int(status.split()[0]) * 1024 + MEMORY_ALLOWED
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
            return self.use_memmap(rows[:half], rows[half:])

    def use_memmap(self, source, target):
        """What has to run within the limit."""
        self.fit(self.make(), source, target)
        return yes()

    def safe_file(self):
        """skops, trusting no type but the package's own."""
        self.require("fit")
        model = self.fitted()
        own, foreign = self.skops_round_trip(model)
        if foreign:
            return part(f"types of others to trust: {', '.join(foreign)}")
        return yes(f"own types to trust: {', '.join(own)}")

    def skops_round_trip(self, model):
        """Types that had to be trusted: the package's own, and others."""
        import skops.io

        data = skops.io.dumps(model)
        untrusted = skops.io.get_untrusted_types(data=data)
        loaded = skops.io.loads(data, trusted=untrusted)
        np.testing.assert_allclose(self.move(loaded, NEW), self.move(model, NEW))
        own = [name for name in untrusted if name.split(".")[0] == self.module]
        return own, [name for name in untrusted if name not in own]

    def pickle(self):
        """pickle and joblib give the same answers."""
        model = self.fitted()
        file = io.BytesIO()
        joblib.dump(model, file)
        file.seek(0)
        for loaded in (pickle.loads(pickle.dumps(model)), joblib.load(file)):
            np.testing.assert_array_equal(self.move(loaded, NEW), self.move(model, NEW))
        return yes()

    def pickle_size(self):
        """Of a model fitted on 500 and 2 000 rows a side, two features."""
        sizes = []
        for n_rows in (500, 2000):
            source, target = np.random.RandomState(0).normal(size=(2, n_rows, 2))
            sizes.append(len(pickle.dumps(self.fit(self.make(), source, target))) / 1e6)
        return Answer("{:.2f} / {:.2f} MB".format(*sizes))

    def pandas(self):
        """DataFrames in fit and transform."""
        import pandas as pd

        return self.frames_in(pd.DataFrame)

    def polars(self):
        """DataFrames in fit and transform."""
        import polars as pl

        return self.frames_in(lambda rows: pl.DataFrame(rows, schema=COLUMNS))

    def frames_in(self, make_frame):
        """Fit and move frames."""
        model = self.fit(self.make(), make_frame(SOURCE), make_frame(TARGET))
        moved = np.asarray(self.move(model, make_frame(NEW)))
        return yes() if np.isfinite(moved).all() else no("the answer is not finite")

    def columns_checked(self):
        """Columns in another order are refused."""
        import pandas as pd

        frames = [pd.DataFrame(cloud, columns=COLUMNS) for cloud in (SOURCE, TARGET, NEW)]
        try:
            model = self.fit(self.make(), *frames[:2])
        except Exception as error:
            raise NotThisKind(f"no DataFrame comes in: {short(error)}") from error
        try:
            self.move(model, frames[2][COLUMNS[::-1]])
        except ValueError as error:
            return yes(short(error))
        return no("columns in another order are accepted")

    def seed(self):
        """Two fits with one seed, and the global generators before and after."""
        before = global_generators()
        first, second = (np.asarray(self.seeded_answer()).tobytes() for _ in range(2))
        untouched = global_generators() == before
        if first != second:
            return no("the answers of two fits differ")
        return yes() if untouched else part("the same bytes; a global generator was moved")

    def seeded_answer(self):
        """What two fits with one seed are compared by."""
        return self.move(self.fitted(), NEW)

    def units(self):
        """Everything times 1 000, and by 1 000: the same answers in the new units, default parameters."""
        return self.equivariance(lambda scale: self.moved_in_units(scale) / scale)

    def moved_in_units(self, scale):
        """Moved points where data are multiplied by `scale`."""
        return np.asarray(self.move(self.fit(self.make(), SOURCE * scale, TARGET * scale), NEW * scale))

    def equivariance(self, answer):
        """Relative difference of `answer(scale)` to that at scale one."""
        reference = np.asarray(answer(1.0))
        changes = {}
        for name, scale in {"x1000": 1000.0, "/1000": 0.001}.items():
            values = np.asarray(answer(scale))
            change = np.abs(values - reference).max() / np.abs(reference).max()
            changes[name] = float(change) if np.isfinite(values).all() else np.nan
        figures = ", ".join(f"{name} {change:.1%}" for name, change in changes.items())
        answer = yes if all(change < 0.01 for change in changes.values()) else no
        return answer(f"largest change of the answer: {figures}")

    def nan_error(self):
        """Fit on a row with NaN."""
        bad = SOURCE.copy()
        bad[3, 1] = np.nan
        try:
            self.use_missing(bad)
        except ValueError as error:
            return yes(short(error)) if "nan" in str(error).lower() else part(short(error))
        return no("no error")

    def use_missing(self, source):
        """What ought to raise."""
        self.fit(self.make(), source, TARGET)

    def unfitted_error(self):
        """Transform before fit."""
        self.require("fit")
        try:
            self.move(self.make(), SOURCE)
        except NotFittedError as error:
            return yes(short(error))
        except Exception as error:
            return no(short(error))
        return no("no error")

    def metrics(self):
        """Anything that says how good a transport is."""
        raise NotImplementedError

    def plots(self):
        """Anything that draws."""
        return self.no_public_name("plot", "display")

    def no_public_name(self, *parts):
        """Look through the names of the package's modules, which stands for trying what is not there."""
        package = Path(importlib.util.find_spec(self.module).origin).parent
        words = [
            f"{path.relative_to(package)}: {line.strip()[:60]}"
            for path in package.rglob("*.py")
            if "tests" not in path.parts
            for line in path.read_text(errors="replace").splitlines()
            if line.startswith(("def ", "class ")) and any(word in line.lower() for word in parts)
        ]
        if words:
            raise NotTried(f"there is {words[0]}")
        return no(f"no function or class with {' or '.join(parts)} in its name")

    def typed(self):
        """The file `py.typed` lies in the package."""
        package = Path(importlib.util.find_spec(self.module).origin).parent
        return yes() if (package / "py.typed").exists() else no("no py.typed")

    def wheel(self):
        """Compiled files among those installed, and the distributions that must come along."""
        compiled = [file for file in importlib.metadata.files(self.distribution) if ".so" in file.suffixes]
        requirements = importlib.metadata.requires(self.distribution) or []
        needed = [name for name in requirements if "extra ==" not in name]
        answer = no if compiled else yes
        return answer(f"{len(compiled)} compiled files; needs {', '.join(needed)}", f"{len(needed)} deps")

    def licence(self):
        """From the metadata, or the first line of the licence file."""
        metadata = importlib.metadata.metadata(self.distribution)
        named = metadata["License-Expression"] or metadata["License"]
        if named:
            return Answer(named)
        files = importlib.metadata.files(self.distribution)
        found = [file for file in files if file.name.lower().startswith(("licen", "copying"))]
        if not found:
            return Answer("none found", "neither in the metadata nor as a file")
        first = found[0].locate().read_text().strip().splitlines()[0]
        return Answer(first.replace(" License", ""), f"from {found[0].name}, not in the metadata")


def global_generators():
    """State of NumPy's and torch's global generators, to compare."""
    return pickle.dumps(np.random.get_state()), torch.get_rng_state().numpy().tobytes()
