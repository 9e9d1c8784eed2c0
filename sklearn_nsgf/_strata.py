"""The classes of two samples: a flow for each, or one flow for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sklearn_nsgf._validation import UNLABELLED, FlowData, FlowScaling, Rows
from sklearn_nsgf.flow import ArraySampler, GaussianSampler, class_probabilities
from sklearn_nsgf.flow._samplers import Sampler


class Stratum(NamedTuple):
    """Where the two minibatches of a flow come from, in the units of the flow.

    Attributes
    ----------
    source, target : Sampler
    share : float
        Of all particles.
    label : int or None
        Index of the class that the network sees.
    """

    source: Sampler
    target: Sampler
    share: float = 1.0
    label: int | None = None


def split_places(
    n_rows: int, codes: np.ndarray | None, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places to train on and places to hold out: the `fraction`, at least one, of each class."""
    classes = np.zeros(n_rows, dtype=int) if codes is None else codes
    order = np.random.RandomState(seed).permutation(n_rows)
    held_out = np.zeros(n_rows, dtype=bool)
    for code in np.unique(classes):
        members = order[classes[order] == code]
        if len(members) > 1:
            held_out[members[: max(1, int(fraction * len(members)))]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def make_strata(
    data: FlowData,
    scaling: FlowScaling,
    places: Sequence[np.ndarray | None],
    *,
    n_classes: int,
    seen: bool,
    blur: float,
) -> list[Stratum]:
    """Return the flows between the chosen rows of both samples: one, or one for each class.

    Parameters
    ----------
    data : FlowData
    scaling : FlowScaling
    places : (ndarray or None, ndarray or None)
        Rows of source and target, None for all.
    n_classes : int
        0 for one flow.
    seen : bool
        Whether the network sees the class.
    blur : float
        Of the plan that shows the class of unlabelled rows.
    """
    rows, codes = [], []
    both = [(data.source, data.source_codes, 0.0), (data.target, data.target_codes, 1.0)]
    for (sample, sample_codes, t), place in zip(both, places, strict=True):
        everything = sample is None or place is None
        encoded = sample and sample.encoded(scaling, t)
        rows.append(encoded if everything else encoded.take(place))
        codes.append(sample_codes if everything or sample_codes is None else sample_codes[place])
    noise = GaussianSampler(scaling.noise_std)
    if n_classes == 0:
        return [Stratum(*(noise if each is None else ArraySampler(each) for each in rows))]
    weights = _class_weights(rows, codes, n_classes, blur)
    strata = []
    for code in range(n_classes):
        sides = [
            (noise, None) if sample is None else _members(sample, weight[:, code])
            for sample, weight in zip(rows, weights, strict=True)
        ]
        if all(sampler is not None for sampler, _ in sides):
            mass = sides[1][1] if sides[0][1] is None else sides[0][1]
            strata.append(Stratum(sides[0][0], sides[1][0], mass, code if seen else None))
    total = sum(stratum.share for stratum in strata)
    return [stratum._replace(share=stratum.share / total) for stratum in strata]


def _class_weights(
    rows: Sequence[Rows | None], codes: Sequence[np.ndarray | None], n_classes: int, blur: float
) -> list[np.ndarray | None]:
    """How much each row of both samples takes part in the flow of each class.

    A row of unknown class takes part in that of its most probable class. A class that would have no row
    at all has every row with its probability.
    """
    weights = []
    for k, sample in enumerate(rows):
        if sample is None:
            weights.append(None)
            continue
        weight = np.eye(n_classes, dtype=np.float32)[codes[k]]
        unknown = np.flatnonzero(codes[k] == UNLABELLED)
        weight[unknown] = 0
        if len(unknown) and (codes[1 - k] != UNLABELLED).any():
            other = rows[1 - k], codes[1 - k]
            probability = class_probabilities(sample, unknown, *other, n_classes, blur=blur)
            weight[unknown] = np.eye(n_classes, dtype=np.float32)[probability.argmax(axis=1)]
            empty = np.flatnonzero(~weight.any(axis=0))
            weight[np.ix_(unknown, empty)] = probability[:, empty]
        weights.append(weight)
    return weights


def _members(sample: Rows, weight: np.ndarray) -> tuple[ArraySampler | None, float]:
    """Sampler of the rows of a class, None if there are none, and how many there are."""
    places = np.flatnonzero(weight)
    if not len(places):
        return None, 0.0
    weight = weight[places].astype(np.float64)
    sampler = ArraySampler(sample.take(places), None if (weight == 1).all() else weight)
    return sampler, float(weight.sum())


def allot(n_points: int, strata: Sequence[Stratum]) -> list[int]:
    """Share of each flow in so many points, at least one."""
    return [max(1, round(n_points * each.share)) for each in strata]
