"""What the benchmarks share: options, timed fits, tables, data, and flow matching by torchcfm."""

import argparse
import copy
import functools
import gzip
import math
import os
import platform
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sklearn_nsgf import NSGFPlusPlus
from sklearn_nsgf.flow import odeint

N_STEPS_AVERAGED = 250


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


def spread(values, digits=3):
    """Mean and standard deviation as text."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def print_row(title, cells, width=15, title_width=26):
    """One line of a table, at once."""
    print(f"{title:{title_width}}" + "".join(f" {cell!s:>{width - 1}}" for cell in cells), flush=True)


class Results:
    """Rows of a table in results/NAME.csv, written at once, so that a run can go on where one ended.

    The first line of the file says with which command and versions it was begun.

    Parameters
    ----------
    name : str
    columns : sequence of str
        The names of the keys, and then those of the figures.
    n_keys : int
    """

    def __init__(self, name, columns, n_keys):
        self.path, self.n_keys, self.rows = Path(__file__).parent / "results" / f"{name}.csv", n_keys, {}
        if not self.path.exists():
            self._write([f"# {' '.join(sys.argv)}; {versions()}", ",".join(columns)])
        for line in self.path.read_text().splitlines()[2:]:
            self._keep(line.split(","))

    def __contains__(self, keys):
        return tuple(map(str, keys)) in self.rows

    def add(self, keys, figures):
        """Keep the figures of these keys, which are not there yet."""
        cells = [*map(str, keys), *(f"{figure:.5g}" for figure in figures)]
        self._write([",".join(cells)])
        self._keep(cells)

    def __getitem__(self, keys):
        """Figures of some keys."""
        return self.rows[tuple(map(str, keys))]

    def _keep(self, cells):
        self.rows[tuple(cells[: self.n_keys])] = [float(cell) for cell in cells[self.n_keys :]]

    def _write(self, lines):
        with self.path.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))


def versions():
    """What a figure was measured with."""
    packages = [
        f"{name} {version(name)}" for name in ("numpy", "torch", "scikit-learn", "POT", "sklearn-nsgf")
    ]
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    threads = f"{torch.get_num_threads()} threads of {cpu.group(1) if cpu else platform.processor()}"
    return f"Python {platform.python_version()}, {', '.join(packages)}, {threads}"


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


class Torchcfm:
    """Flow matching by torchcfm, trained for a number of seconds in the units of our estimators.

    Each cloud is centred on its own mean and divided by the root of the mean of both variances. Optimiser,
    schedule (over the seconds) and clipping are those of our training loop. The averaging has a constant
    window of 250 iterations; ours is a share of all iterations.

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

    def transform(self, points, n_steps=5):
        """Points of the source, moved by Euler steps."""
        return self._follow(self._encode(points, 0), n_steps)

    @torch.no_grad()
    def _follow(self, points, n_steps):
        return odeint(self.network, points, n_steps=n_steps).numpy() * self.scale + self.means[1]


def draw(rows, n_rows):
    """Random rows, with replacement."""
    return rows[torch.randint(len(rows), (n_rows,))]


def train_for(seconds, network, matcher, draw_source, draw_target, learning_rate, batch_size=256):
    """Train for so many seconds of the CPU; return the averaged network and the iterations made."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / N_STEPS_AVERAGED))
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
