"""A leg that starts where another one ends."""

from __future__ import annotations

from functools import partial

import numpy as np

from sklearn_nsgf._data.layout import float_dtype
from sklearn_nsgf._learning.learn import MAX_SEED, FitJob
from sklearn_nsgf._learning.strata import Stratum, shares
from sklearn_nsgf._model.leg import Leg, NetworkOnRows
from sklearn_nsgf._model.model import follow_leg
from sklearn_nsgf._model.reservoir import Reservoir
from sklearn_nsgf.flow import PushforwardSampler

# Starts that a leg keeps, to be sampled from by itself.
N_STARTS = 1000


def from_the_end_of(first: Leg, job: FitJob, n_steps: int, solver: str) -> FitJob:
    """The same flows, from where a leg takes their sources.

    The leg's network is on the device for as long as the job lasts.
    """
    network = first.on(job.device, np.dtype(np.float32))

    def push(stratum: Stratum) -> Stratum:
        code = stratum.code if job.space.classes.are_seen else None
        transport = partial(_push, network, code, n_steps, solver)
        sampler = PushforwardSampler(stratum.source.sampler, transport)
        return stratum._replace(source=stratum.source._replace(sampler=sampler))

    return job._replace(
        training=[push(stratum) for stratum in job.training],
        held_out=[push(stratum) for stratum in job.held_out],
    )


def choose_starts(job: FitJob, before: Leg | None) -> Reservoir:
    """Some points from which the flows of a job start.

    A class that this part of the data lacks keeps those of `before`.
    """
    rng, dtype = np.random.default_rng(job.rng.randint(MAX_SEED)), float_dtype(job.space.dtypes[1])
    classes, frame = job.space.classes, job.space.frame.behind()
    rows: dict[int, list[np.ndarray]] = {}
    codes: dict[int, list[np.ndarray]] = {}
    for stratum, share in zip(job.training, shares(job.training), strict=True):
        sampler = stratum.source.sampler
        n_starts = int(min(max(1, round(N_STARTS * share)), sampler.n_rows))
        starts = frame.decode(sampler.draw(n_starts, rng), 0.0, dtype)
        group = stratum.code if classes.are_seen else 0
        rows.setdefault(group, []).append(starts)
        codes.setdefault(group, []).append(np.full(n_starts, stratum.code or 0))
    groups = range(max(1, classes.n_seen))
    absent = [group for group in groups if group not in rows]
    if absent and (before is None or before.starts is None):
        raise ValueError(
            f"There are no rows of the classes {classes.labels[absent].tolist()}, and no earlier straight "
            "flow that had some. Pass rows of each class."
        )
    for group in absent:
        rows[group], codes[group] = [before.starts.rows[group]], [before.starts.codes[group]]
    joined = [[np.concatenate(parts[group]) for group in groups] for parts in (rows, codes)]
    return Reservoir([len(each) for each in joined[0]], joined[0], joined[1])


def _push(network: NetworkOnRows, code: int | None, n_steps: int, solver: str, Z: np.ndarray) -> np.ndarray:
    codes = None if code is None else np.full(len(Z), code)
    return follow_leg(network, Z, codes, 0.0, 1.0, n_steps, solver)[-1]
