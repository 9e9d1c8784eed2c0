"""What the benchmarks share: options, timed fits, tables, files, data, simple maps, and torchcfm's flows."""

import argparse
import copy
import csv
import functools
import gzip
import importlib.metadata
import math
import os
import platform
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.preprocessing import QuantileTransformer
from torch.optim.swa_utils import AveragedModel

import sklearn_nsgf
from sklearn_nsgf import NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.flow import odeint

# Those of hidden_layer_sizes="auto" with at most 32 features.
FEW_FEATURES_LAYERS = (128, 128, 128)


def make_parser(doc, *, seeds=None, data=None):
    """Parser with the first line of `doc`; `data` is "required" or "optional"."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    if seeds is not None:
        parser.add_argument("--seeds", type=int, default=seeds, help=f"how many, {seeds} by default")
    if data is not None:
        default = os.environ.get("SKLEARN_NSGF_DATA")
        parser.add_argument(
            "--data",
            type=Path,
            default=default,
            required=data == "required" and default is None,
            help="folder of the files; by default that of the variable SKLEARN_NSGF_DATA",
        )
    return parser


def timed_fit(est, *samples):
    """Fit; return the estimator and the CPU's seconds, those of all threads together."""
    start = time.process_time()
    est.fit(*samples)
    return est, time.process_time() - start


def with_evaluations(est, n_evaluations):
    """The same flow with so many evaluations of a network for each point, two at least."""
    est = copy.copy(est)
    if isinstance(est, NSGFPlusPlus):
        n_sinkhorn_steps = min(est.n_sinkhorn_steps, n_evaluations - 1)
        return est.set_params(
            n_sinkhorn_steps=n_sinkhorn_steps, n_straight_steps=n_evaluations - n_sinkhorn_steps
        )
    return est.set_params(n_steps=n_evaluations)


def shortened(est, share):
    """Let the next fit have a share of the steps, and of the flows and couplings that are made for them."""
    names = [name for name in ("max_iter", "n_flows", "n_couplings") if hasattr(est, name)]
    return est.set_params(**{name: max(1, round(share * getattr(est, name))) for name in names})


def force_network(est):
    """Let the next fit keep its network, with a quarter of the steps."""
    return shortened(est.set_params(early_stopping=False), 1 / 4)


def spread(values, digits=3):
    """Mean and standard deviation as text."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def print_row(title, cells, width=15, title_width=26):
    """One line of a table, at once."""
    print(f"{title:{title_width}}" + "".join(f" {cell!s:>{width - 1}}" for cell in cells), flush=True)


class ResultsFile:
    """results/<script>.csv, row by row; its first line says what was run, with which versions, on what.

    Parameters
    ----------
    *columns : str
    n_keys : int, default=0
        How many of them tell rows apart. With any, the rows of an earlier run stay, so that a run can be done
        in parts. With none they are replaced.
    path : Path, default=None
        Another place.
    """

    def __init__(self, *columns, n_keys=0, path=None):
        self.path = path or Path(__file__).parent / "results" / f"{Path(sys.argv[0]).stem}.csv"
        self.n_keys, self.rows = n_keys, {}
        if n_keys == 0 or not self.path.exists():
            self.path.write_text(f"# {describe_run()}\n{','.join(columns)}\n")
        with self.path.open(newline="") as file:
            for cells in list(csv.reader(file))[2:]:
                self._keep(cells)

    def write(self, *cells):
        """Numbers are written with six digits."""
        cells = _as_text(cells)
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(cells)
        self._keep(cells)

    def __contains__(self, keys):
        return _as_text(keys) in self.rows

    def __getitem__(self, keys):
        """Figures of a row."""
        return self.rows[_as_text(keys)]

    def _keep(self, cells):
        if self.n_keys:
            self.rows[tuple(cells[: self.n_keys])] = [float(cell) for cell in cells[self.n_keys :]]


def _as_text(cells):
    return tuple(f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells)


def describe_run():
    """Command, versions, processor and threads."""
    command = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    packages = ("numpy", "torch", "scikit-learn", "POT")
    versions = {
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "sklearn-nsgf": sklearn_nsgf.__version__,
    }
    parts = [f"{name} {version}" for name, version in versions.items()]
    return "; ".join([shlex.join(command), *parts, processor(), f"{torch.get_num_threads()} thread(s)"])


def processor():
    """The name of the CPU, as far as the system tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def read_idx(path):
    """Array of an IDX file, gzipped, read-only: MNIST's images and labels."""
    with gzip.open(path) as file:
        content = file.read()
    n_axes = content[3]
    shape = np.frombuffer(content, ">i4", count=n_axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


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


def known_maps(X, Y):
    """Maps that need no network, of the kind X -> answer."""
    frames = {}
    for kind in ("shift", "linear"):
        est = SinkhornFlowTransport(frame=kind, n_flows=1, flow_batch_size=8, max_iter=1, early_stopping=True)
        frames[kind] = est.set_params(learning_rate=1e-9, n_steps=1).fit(X, Y).transform
    options = {"output_distribution": "normal", "subsample": None}
    scores = [QuantileTransformer(n_quantiles=len(each), **options).fit(each) for each in (X, Y)]
    quantile = lambda new: scores[1].inverse_transform(scores[0].transform(new))  # noqa: E731
    return {"nothing": lambda new: new, **frames, "quantile": quantile}


class Torchcfm:
    """Flow matching by torchcfm, trained for a number of seconds in the units of our estimators.

    Each cloud is centred on its own mean and divided by the root of the mean of both variances. Optimiser,
    schedule (over the seconds), clipping and averaging are those of our training loop.

    Parameters
    ----------
    name : {"I-CFM", "OT-CFM"}
    source : ndarray or None
        None is a normal sample with the mean and the deviations of the target.
    per_feature : bool
        One scale for each feature, or one for all.
    """

    def __init__(self, name, network, source, target, *, per_feature, seconds, seed, learning_rate):
        from torchcfm import conditional_flow_matching as matchers

        matcher = {
            "I-CFM": matchers.ConditionalFlowMatcher,
            "OT-CFM": matchers.ExactOptimalTransportConditionalFlowMatcher,
        }[name](sigma=0.0)
        source = target if (from_noise := source is None) else source
        self.means = source.mean(axis=0), target.mean(axis=0)
        variance = (source.var(axis=0) + target.var(axis=0)) / 2
        self.scale = np.sqrt(variance if per_feature else variance.mean())
        self.noise_std = torch.tensor(source.std(axis=0) / self.scale, dtype=torch.float32)
        torch.manual_seed(seed)
        np.random.seed(seed)  # torchcfm draws from the plan with NumPy's global generator
        source_rows, target_rows = self._encode(source, 0), self._encode(target, 1)
        draw_source = self.draw_noise if from_noise else lambda n: draw(source_rows, n)
        self.network, self.n_iter_ = train_for(
            seconds, network, matcher, draw_source, lambda n: draw(target_rows, n), learning_rate
        )

    def _encode(self, rows, side):
        return torch.tensor((rows - self.means[side]) / self.scale, dtype=torch.float32)

    def draw_noise(self, n_rows, generator=None):
        """Points of the normal source, in the units of the flow."""
        return self.noise_std * torch.randn(n_rows, len(self.noise_std), generator=generator)

    def sample(self, n_rows, n_steps=5, seed=0):
        """New points from noise, by Euler steps."""
        return self._follow(self.draw_noise(n_rows, torch.Generator().manual_seed(seed)), n_steps)

    def transform(self, points, n_steps=5, t_end=1.0):
        """Points of the source, moved by Euler steps to a time, at which the mean is as far on its way."""
        return self._follow(self._encode(points, 0), n_steps, t_end)

    @torch.no_grad()
    def _follow(self, points, n_steps, t_end=1.0):
        mean = (1 - t_end) * self.means[0] + t_end * self.means[1]
        return odeint(self.network, points, n_steps=n_steps, t_end=t_end).numpy() * self.scale + mean


def draw(rows, n_rows):
    """Random rows, with replacement."""
    return rows[torch.randint(len(rows), (n_rows,))]


@torch.no_grad()
def average_last_tenth(averages, parameters, n_averaged):
    """Take in the parameters of a step: the average is over about the last tenth of those so far."""
    torch._foreach_lerp_(averages, parameters, 1 / (1 + 0.1 * float(n_averaged)))


def train_for(seconds, network, matcher, draw_source, draw_target, learning_rate, batch_size=256):
    """Train for so many seconds of the CPU; return the averaged network and the iterations made."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    average = AveragedModel(network, multi_avg_fn=average_last_tenth)
    network.train()
    n_iter, start = 0, time.process_time()
    while (spent := (time.process_time() - start) / seconds) < 1:
        rate = learning_rate * min(1.0, spent / 0.05 + 0.01) * (1 + math.cos(math.pi * spent)) / 2
        optimizer.param_groups[0]["lr"] = rate
        t, x_t, v_t = matcher.sample_location_and_conditional_flow(
            draw_source(batch_size), draw_target(batch_size)
        )
        loss = (network(t, x_t) - v_t).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        n_iter += 1
    return average.module.eval(), n_iter
