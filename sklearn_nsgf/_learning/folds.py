"""Whether a network is better than none, asked of folds of a few hundred rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import nn

from sklearn_nsgf._learning.held_out import Distance, HeldOutDistance, mean_distance
from sklearn_nsgf._learning.processes import processes
from sklearn_nsgf._learning.strata import Fold, Stratum
from sklearn_nsgf._learning.training import TrainingResult
from sklearn_nsgf._model.leg import Curves
from sklearn_nsgf._torch import one_thread
from sklearn_nsgf.flow import TrajectoryPool

# Steps of a training on a fold, and on all rows if they are so few that folds decide: more only learn them by
# heart. In a generation so many for each row, if that is more, and whether or not there are folds.
FEW_STEPS, STEPS_PER_ROW = 200, 2
# By how many standard errors a network must be better than none, and by how many more with few features,
# divided by their square. Rows are dealt to the folds evenly, so that distances scatter by less than that.
# But even folds repeat each other, in one feature nearly to the row: who knows one knows the others.
N_ERRORS, N_MORE_ERRORS = 0.5, 1.0
# The same of noise for the distance in all features and that to the nearest point together. The latter alone
# calls normal rows of many features better the nearer they are drawn together: by 8 errors of 50 features.
N_ERRORS_TOGETHER = 2.5


class Looks(NamedTuple):
    """What folds of held-out rows say.

    Attributes
    ----------
    is_better : bool
        Whether a network is better than none.
    curves : Curves
        Of the last fold, with what all of them say before and after the training.
    interrupted : bool
        Whether Ctrl-C or a callback ended it, so that nothing is known.
    """

    is_better: bool
    curves: Curves
    interrupted: bool = False


def n_few_steps(strata: list[Stratum]) -> int:
    """Steps of a training on all of the rows, if `max_iter` is not less."""
    if any(math.isfinite(each.source.n_rows) for each in strata):
        return FEW_STEPS
    return max(FEW_STEPS, round(STEPS_PER_ROW * sum(each.target.n_rows for each in strata)))


def cross_validate(
    folds: list[Fold],
    train: Callable[[list[Stratum]], tuple[TrainingResult, TrajectoryPool]],
    criterion_of: Callable[[list[Stratum], int], HeldOutDistance],
    end_step: Callable[..., bool],
    n_features: int,
) -> Looks:
    """Train a network on each fold, and ask the rows held out of it whether it is better than none.

    Parameters
    ----------
    folds : list of Fold
    train : callable
        Trains on strata.
    criterion_of : callable
        The distance that held-out strata tell, of the fold of that number.
    end_step : callable
        Is called after each fold; says whether to stop.
    n_features : int

    Returns
    -------
    looks : Looks
    """
    distances: list[list[tuple[Distance, Distance]]] = []
    curves, team = Curves([], [], [], [], 0, 0), processes()
    # Noise has none of the features' own shapes, and by either distance a network may have learnt some. Moved
    # rows bring theirs along, and did worse by the second one: measured on 54 pairs of 50 to 200 rows.
    is_noise = any(math.isinf(each.source.n_rows) for each in folds[0].held_out)
    try:
        for k, (training, held_out) in enumerate(folds):
            result, _ = train(training)
            curves = result.curves._replace(n_kept=0)
            if result.interrupted:
                return Looks(False, curves, interrupted=True)
            with one_thread:
                ask = partial(_ask_about, criterion_of(held_out, k), result.network, is_noise)
                distances.append(team.ask_first(ask)())
            if k < len(folds) - 1 and team.ask_first(end_step)():
                return Looks(False, curves, interrupted=True)
        n_errors = N_ERRORS + N_MORE_ERRORS / n_features**2
        pairs = [tuple(map(mean_distance, zip(*each, strict=True))) for each in zip(*distances, strict=True)]
        gains = [with_network.gain_on(without) for without, with_network in pairs]
        is_better = max(gains[:2]) > n_errors
        if is_noise:
            is_better |= (gains[0] + gains[2]) / math.sqrt(2) > N_ERRORS_TOGETHER
        if team.ask_first(partial(end_step, last=not is_better))() and is_better:
            return Looks(False, curves, interrupted=True)
    except KeyboardInterrupt:
        if curves.n_iter == 0:
            raise
        return Looks(False, curves, interrupted=True)
    steps = [0, curves.n_iter]
    validation = [distance.value for distance in pairs[0]]
    curves = curves._replace(validation=validation, validation_steps=steps)
    return Looks(is_better, curves)


def _ask_about(
    criterion: HeldOutDistance, network: nn.Module, is_noise: bool
) -> list[tuple[Distance, Distance]]:
    """Without and with the network, by each of the distances."""
    if not is_noise:
        return [(criterion(None), criterion(network))]
    return list(zip(*map(criterion.with_details, (None, network)), strict=True))
