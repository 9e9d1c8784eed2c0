"""Where the two minibatches of each flow come from: one flow for all rows, or one for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sklearn_nsgf._data.choice import frame_like
from sklearn_nsgf._data.frame import Frame
from sklearn_nsgf._data.labels import Classes
from sklearn_nsgf._data.rows import Sample
from sklearn_nsgf._data.space import Space
from sklearn_nsgf._model.reservoir import Reservoir
from sklearn_nsgf.domains import UNLABELLED
from sklearn_nsgf.flow import ArraySampler, MixtureSampler, class_probabilities
from sklearn_nsgf.flow._samplers import Sampler, tree_order

# Blur of the plan that tells the classes of unlabelled rows, as a fraction of the target's RMS distance:
# measured on Office-Caltech10, where less tells them hardly better than no plan.
CLASS_BLUR = 0.3
# Flows are learnt in float32, in which squares of larger numbers are none, or sums of many.
LARGEST_POINT = 1e15


class Side(NamedTuple):
    """Rows of one sample, in the units of the flow.

    Attributes
    ----------
    sampler : Sampler
    n_rows : float
        How many rows they stand for; infinity for noise.
    """

    sampler: Sampler
    n_rows: float


class Stratum(NamedTuple):
    """The two sides of a flow, and the class to which both belong, if any."""

    source: Side
    target: Side
    code: int | None = None


class Fold(NamedTuple):
    """Flows to train on, and flows between rows that are held out of them."""

    training: list[Stratum]
    held_out: list[Stratum]


def shares(strata: Sequence[Stratum]) -> np.ndarray:
    """Part of all particles that each flow has."""
    sizes = np.array([min(s.source.n_rows, math.inf) for s in strata])
    if not np.isfinite(sizes).all():
        sizes = np.array([s.target.n_rows for s in strata])
    return sizes / sizes.sum()


def split_places(
    sample: Sample, fraction: float, seed: int, n_folds: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places to train on and places to hold out, in each fold: of each class the `fraction`, at least one.

    Each row is held out with the same probability, and one of each group of neighbours: two halves of
    a sample would differ by chance, and the one that is held out from what was learnt of the other. Several
    folds hold out all rows in turn, whatever the fraction, but those of classes with a single one.
    """
    classes = np.zeros(sample.n_rows, dtype=int) if sample.codes is None else sample.codes
    rng, order = np.random.RandomState(seed), tree_order(sample.rows)
    fold = np.full(sample.n_rows, -1)
    for code in np.unique(classes):
        members = order[classes[order] == code]
        if n_folds == 1:
            groups = np.array_split(members, max(1, int(fraction * len(members))))
        else:
            groups = np.split(members, range(n_folds, len(members), n_folds))
        for group in groups if len(members) > 1 else []:
            places = rng.permutation(group)[:n_folds]
            fold[places] = rng.permutation(n_folds)[: len(places)]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(n_folds)]


def in_frame(sample: Sample, space: Space, t: float) -> Sample:
    """The same sample as points of the flow at time t."""
    return sample._replace(rows=sample.rows.encoded(partial(_encoded, space.frame, t=t)))


def _encoded(frame: Frame, rows: np.ndarray, t: float) -> np.ndarray:
    points = frame.encode(rows, t)
    if not (np.abs(points) < LARGEST_POINT).all():
        raise ValueError(
            f"X or y has rows more than {LARGEST_POINT:.0e} standard deviations away, which is too far for "
            f"float32 with frame={frame.kind!r}. Look for mistakes among the largest values, take another "
            "frame, or, if an earlier fit found the units, fit afresh."
        )
    return points


def make_strata(source: Sample | None, target: Sample, space: Space) -> list[Stratum]:
    """Return the flows between two samples: one, or one for each class.

    Parameters
    ----------
    source : Sample or None
        None for noise.
    target : Sample
    space : Space
    """
    frame, classes = space.frame, space.classes
    encoded = [source and in_frame(source, space, 0.0), in_frame(target, space, 1.0)]
    if classes.mode == "ignore":
        return [Stratum(*(_members(sample, None) if sample else _noise(frame) for sample in encoded))]
    weights = _class_weights(encoded, classes, CLASS_BLUR * (frame.target_rms_distance or 1.0))
    strata = []
    for code in range(len(classes.labels)):
        sides = [
            _noise(frame, code) if sample is None else _members(sample, weight[:, code])
            for sample, weight in zip(encoded, weights, strict=True)
        ]
        if all(side is not None for side in sides):
            strata.append(Stratum(*sides, code))
    return strata


def _noise(frame: Frame, code: int | None = None) -> Side:
    return Side(frame.noise_of(code).sampler, math.inf)


def make_folds(
    source: Sample | None,
    target: Sample,
    space: Space,
    fraction: float,
    seed: int,
    n_folds: int,
    own_frames: bool,
) -> list[Fold]:
    """Return folds with a fraction of the rows held out of each.

    With their own frames they start where their own rows say: a start does not know the rows that are held
    out, as a network does not.
    """
    splits = [
        [(None, None)] * n_folds
        if sample is None
        else [
            (sample.take(training), sample.take(held_out))
            for training, held_out in split_places(in_frame(sample, space, t), fraction, seed, n_folds)
        ]
        for sample, t in ((source, 0.0), (target, 1.0))
    ]
    folds = []
    for parts in zip(*splits, strict=True):
        training, held_out = zip(*parts, strict=True)
        # Of classes with fewer rows than folds, some have none.
        if all(sample is None or sample.n_rows for sample in held_out):
            folds.append(_fold(training, held_out, space, has_own_frame=own_frames))
    return [fold for fold in folds if fold.held_out]


def _fold(training: Sequence[Any], held_out: Sequence[Any], space: Space, *, has_own_frame: bool) -> Fold:
    if has_own_frame:
        source, target = training
        try:
            codes = target.codes if space.classes.are_seen else None
            frame = frame_like(space.frame, source and source.rows, target.rows, codes)
            own = space._replace(frame=frame)
            return _fold(training, held_out, own, has_own_frame=False)
        except ValueError:
            # A value that is held out is too far from all others for a frame that does not know it.
            pass
    return Fold(make_strata(*training, space), make_strata(*held_out, space))


def with_kept_rows(
    strata: list[Stratum], source: Reservoir | None, target: Reservoir, space: Space
) -> list[Stratum]:
    """The flows between new rows and those kept of earlier ones, in proportion to what all of them were."""
    kept = make_strata(source and source.sample(), target.sample(), space)
    by_code = {stratum.code: [stratum] for stratum in strata}
    for stratum in kept:
        by_code.setdefault(stratum.code, []).append(
            stratum._replace(
                source=stratum.source if source is None else _standing_for(stratum, "source", source),
                target=_standing_for(stratum, "target", target),
            )
        )
    return [
        Stratum(_together([each.source for each in group]), _together([each.target for each in group]), code)
        for code, group in by_code.items()
    ]


def _standing_for(stratum: Stratum, name: str, reservoir: Reservoir) -> Side:
    side = getattr(stratum, name)
    return side._replace(n_rows=side.n_rows * reservoir.weight(stratum.code))


def _together(sides: list[Side]) -> Side:
    if len(sides) == 1 or math.isinf(sides[0].n_rows):
        return sides[0]
    n_rows = [side.n_rows for side in sides]
    return Side(MixtureSampler([side.sampler for side in sides], n_rows), sum(n_rows))


def _class_weights(
    samples: Sequence[Sample | None], classes: Classes, blur: float
) -> list[np.ndarray | None]:
    """How much each row of both samples takes part in the flow of each class.

    A row of unknown class takes part in that of its most probable class. A class that would have no row
    at all has every row with its probability.
    """
    weights, n_classes = [], len(classes.labels)
    for k, sample in enumerate(samples):
        if sample is None:
            weights.append(None)
            continue
        weight = np.eye(n_classes, dtype=np.float32)[sample.codes]
        unknown = np.flatnonzero(sample.codes == UNLABELLED)
        weight[unknown] = 0
        other = samples[1 - k]
        if len(unknown) and (other.codes != UNLABELLED).any():
            probability = class_probabilities(
                sample.rows, unknown, other.rows, other.codes, n_classes, blur=blur
            )
            weight[unknown] = np.eye(n_classes, dtype=np.float32)[probability.argmax(axis=1)]
            empty = np.flatnonzero(~weight.any(axis=0))
            weight[np.ix_(unknown, empty)] = probability[:, empty]
        weights.append(weight)
    return weights


def _members(sample: Sample, weight: np.ndarray | None) -> Side | None:
    """The rows of a class, or all rows without weights; None if there are none."""
    if weight is None:
        return Side(ArraySampler(sample.rows), sample.n_rows * sample.n_each)
    places = np.flatnonzero(weight)
    if not len(places):
        return None
    weight = weight[places].astype(np.float64)
    sampler = ArraySampler(sample.rows.take(places), None if (weight == 1).all() else weight)
    return Side(sampler, float(weight.sum()))


def allot(n_points: int, strata: Sequence[Stratum]) -> list[int]:
    """Share of each flow in so many points, at least one."""
    return [max(1, round(n_points * share)) for share in shares(strata)]
