"""A leg of the flow, learnt: paths are made, a network is trained on them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sklearn_nsgf._data.space import Space
from sklearn_nsgf._learning.checkpoint import Checkpoint
from sklearn_nsgf._learning.folds import FEW_STEPS, cross_validate, n_few_steps
from sklearn_nsgf._learning.held_out import HeldOutDistance
from sklearn_nsgf._learning.paths import FEWEST_BLOCKS, Paths
from sklearn_nsgf._learning.processes import processes
from sklearn_nsgf._learning.strata import Fold, Stratum, allot
from sklearn_nsgf._learning.tasks import FitTasks
from sklearn_nsgf._learning.training import (
    Settings,
    TrainingResult,
    n_evaluations,
    time_loss,
    train_network,
)
from sklearn_nsgf._learning.two_phases import TwoPhases, moved_halfway
from sklearn_nsgf._model.leg import Curves, Leg, NetworkOnRows, bare, new_time_predictor, on_rows
from sklearn_nsgf._model.model import FlowModel
from sklearn_nsgf._torch import RandomStream, make_generator
from sklearn_nsgf._verbose import say
from sklearn_nsgf.flow import PathSample, StackedBlocks, TrajectoryPool
from sklearn_nsgf.networks import MLP, TimePredictor, UNet, make_network

MAX_SEED = np.iinfo(np.int32).max
# Part of the minibatches paired from where a network takes the sources that is held at a time: it learns, and
# older ones are of a worse network.
LIVE_SHARE = 1 / 8

# Is told the averaged network, the curves up to there, and whether it is the last one; says whether to stop.
Report = Callable[[nn.Module, Curves, bool], bool]


class FitJob(NamedTuple):
    """What a fit has to do, once its arguments are checked.

    Attributes
    ----------
    space : Space
    training : list of Stratum
    held_out : list of Stratum
        What early stopping looks at, if not empty.
    folds : list of Fold
        Few rows, dealt to what is trained on and what is held out, if they decide about the network.
    steps_follow_rows : bool
        Whether few rows have fewer steps than `max_iter`.
    settings : Settings
    device : torch device
    rng : RandomState
    tasks : FitTasks
    checkpoint : Checkpoint or None
    """

    space: Space
    training: list[Stratum]
    held_out: list[Stratum]
    folds: list[Fold]
    steps_follow_rows: bool
    settings: Settings
    device: torch.device
    rng: np.random.RandomState
    tasks: FitTasks
    checkpoint: Checkpoint | None


class Batches:
    """Batches of a pool, as a generator draws them."""

    def __init__(self, pool: TrajectoryPool | TwoPhases, generator: torch.Generator) -> None:
        self.pool, self.generator = pool, generator

    def __call__(self, n_samples: int) -> PathSample:
        return self.pool.sample(n_samples, self.generator)

    def state_dict(self) -> dict[str, Any]:
        return {"pool": self.pool.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pool.load_state_dict(state["pool"])
        self.generator.set_state(state["generator"])


# Whatever the caller has switched off: training needs gradients.
@torch.inference_mode(mode=False)
@torch.enable_grad()
def learn_leg(
    name: str,
    paths: Paths,
    architecture: dict[str, Any],
    steps: tuple[tuple[int, ...], str],
    job: FitJob,
    before: Leg | None,
    model_with: Callable[[Leg], FlowModel],
    *,
    second_paths: Paths | None = None,
    **details: Any,
) -> tuple[Leg, bool]:
    """Train a velocity network on paths.

    Parameters
    ----------
    name : str
        Of the estimator, for the log.
    paths : Paths
    architecture : dict
        Arguments of `make_network` for a leg that begins anew.
    steps : (tuple of int, str)
        Number of steps of each phase and solver with which the leg will be followed.
    job : FitJob
    before : Leg or None
        The one to go on from; it stays as it is.
    model_with : callable
        Makes the model as it would be with a leg.
    second_paths : Paths, default=None
        What the second half of the time is learnt from, out of where the network takes the sources in the
        first one.
    **details
        Further arguments of `Leg`.

    Returns
    -------
    leg : Leg
    interrupted : bool
        Whether Ctrl-C ended it early.
    """
    pool_seed, validation_seed, network_seed, second_seed = job.rng.randint(MAX_SEED, size=4).tolist()
    event_shape, are_seen = job.space.layout.event_shape, job.space.classes.are_seen
    start = architecture
    if before is not None:
        architecture = before.architecture
        start = {**architecture, "network": before.network}

    def leg_of(network: nn.Module, curves: Curves) -> Leg:
        n_phases = len(steps[0])
        return Leg(bare(network).cpu().eval(), architecture, curves, paths.blur, n_phases=n_phases, **details)

    def model_so_far(average: nn.Module, curves: Curves) -> FlowModel:
        return model_with(leg_of(copy.deepcopy(average), going_on(curves)))

    def going_on(curves: Curves) -> Curves:
        return curves if before is None else before.curves.then(curves)

    def new_network() -> nn.Module:
        return on_rows(make_network(**start, seed=network_seed), event_shape, job.device)

    if job.settings.max_iter == 0:
        return before or leg_of(new_network(), Curves([], [], [], [], 0, 0)), False

    def criterion_of(held_out: list[Stratum], fold: int = 0) -> HeldOutDistance:
        seed = (validation_seed, fold)
        return HeldOutDistance(held_out, *steps, are_seen=are_seen, device=job.device, seed=seed)

    goes_on = before is not None and not before.is_at_rest
    n_folds, looks, settings = len(job.folds), None, job.settings
    if job.steps_follow_rows:
        n_steps = min(settings.max_iter, n_few_steps(job.training))
        settings = settings._replace(max_iter=n_steps)

    def train(
        strata: list[Stratum], report: Report | None, n_steps: int, **options: Any
    ) -> tuple[TrainingResult, TrajectoryPool]:
        share = n_steps / job.settings.max_iter
        shorter = job._replace(settings=job.settings._replace(max_iter=n_steps))
        network = new_network()
        pool = make_pool(paths.shortened(share), strata, shorter, pool_seed)
        source: TrajectoryPool | TwoPhases = pool
        if second_paths is not None:
            live = NetworkOnRows(network, job.device, np.dtype(np.float32))
            moved = moved_halfway(strata, live, steps[0][0], steps[1], are_seen=are_seen)
            second_pool = make_pool(second_paths.shortened(share), moved, shorter, second_seed, are_live=True)
            source = TwoPhases(pool, second_pool)
        return _train(network, source, shorter, (pool_seed, network_seed), report, **options), pool

    with job.tasks.phase(paths.training_task, "evaluation", n_folds + n_evaluations(settings)) as end_step:

        def report(average: nn.Module, curves: Curves, last: bool) -> bool:
            return end_step(lambda: model_so_far(average, curves), last=last)

        if n_folds:
            train_briefly = partial(train, report=None, n_steps=min(settings.max_iter, FEW_STEPS))
            looks = cross_validate(job.folds, train_briefly, criterion_of, end_step, math.prod(event_shape))
            if not looks.is_better:
                if settings.verbose and not looks.interrupted:
                    say("%s keeps no network, by what %d folds of held-out rows say", name, n_folds)
                return leg_of(new_network(), going_on(looks.curves)), looks.interrupted
        try:
            result, pool = train(
                job.training,
                report,
                settings.max_iter,
                constant_rate=goes_on,
                compile=settings.compile,
                criterion=criterion_of(job.held_out) if job.held_out else None,
                n_iter_no_change=settings.n_iter_no_change,
                beats_network=goes_on,
            )
        except KeyboardInterrupt:
            if looks is None:
                raise
            return leg_of(new_network(), going_on(looks.curves)), True
    paths.report(pool, bool(settings.verbose))
    if settings.verbose:
        say("%s trained %d iterations, loss %.3g", name, result.curves.n_iter, result.curves.loss[-1])
        if job.held_out:
            say("of these it keeps %d, by what held-out rows say", result.curves.n_kept)
        elif n_folds:
            say("it keeps them, by what %d folds of held-out rows say", n_folds)
    curves = result.curves
    if looks is not None:
        seen = looks.curves
        curves = curves._replace(validation=seen.validation, validation_steps=seen.validation_steps)
    return leg_of(result.network, going_on(curves)), result.interrupted


@torch.inference_mode(mode=False)
@torch.enable_grad()
def learn_times(
    paths: Paths, hidden_layer_sizes: tuple[int, ...], job: FitJob, before: TimePredictor | None
) -> tuple[TimePredictor, bool]:
    """Train a time predictor on paths: Algorithm 3, phase-transition time predictor.

    Returns it and whether Ctrl-C ended the training.
    """
    pool_seed, network_seed = job.rng.randint(MAX_SEED, size=2).tolist()
    pool = make_pool(paths, job.training, job, pool_seed)
    if before is None:
        predictor = new_time_predictor(job.space.layout.event_shape, hidden_layer_sizes, seed=network_seed)
    else:
        predictor = copy.deepcopy(before)
    if job.settings.max_iter == 0:
        return predictor, False
    with job.tasks.phase("time predictor", "evaluation", n_evaluations(job.settings)) as end_step:
        result = _train(
            predictor,
            pool,
            job,
            (pool_seed, network_seed),
            lambda average, curves, last: end_step(last=last),
            loss=time_loss,
            constant_rate=before is not None,
        )
    if job.settings.verbose:
        say("trained the time predictor, loss %.3g", result.curves.loss[-1])
    return result.network.cpu().eval(), result.interrupted


def _train(
    network: nn.Module,
    pool: TrajectoryPool | TwoPhases,
    job: FitJob,
    seeds: tuple[int, int],
    report: Report | None,
    **options: Any,
) -> TrainingResult:
    """Train a network on a pool."""
    settings = job.settings
    pool_seed, network_seed = seeds
    return train_network(
        network.to(job.device),
        # Each process draws its own points.
        Batches(pool, make_generator(pool_seed + processes().rank, job.device)),
        max_iter=settings.max_iter,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        verbose=settings.verbose > 1,
        # Any other network may draw whenever it likes.
        stream=RandomStream(network_seed, is_used=type(bare(network)) not in (MLP, UNet, TimePredictor)),
        report=report,
        checkpoint=job.checkpoint,
        **options,
    )


def make_pool(
    paths: Paths, strata: list[Stratum], job: FitJob, seed: int, *, are_live: bool = False
) -> TrajectoryPool:
    """A pool of paths, which are made when they are drawn from, no more than a training draws points.

    Of live ones, which start where a network is, a part is held at a time.
    """
    makers = [
        paths.make_blocks(stratum, n, job.device)
        for stratum, n in zip(strata, allot(paths.n_points(strata), strata), strict=True)
    ]
    n_paths = [maker.n_paths for maker in makers]
    n_seen = math.ceil(job.settings.max_iter * job.settings.batch_size / sum(n_paths))
    n_blocks = min(paths.n_blocks, max(FEWEST_BLOCKS, n_seen))
    labels = None
    if job.space.classes.are_seen:
        codes = torch.tensor([stratum.code for stratum in strata])
        labels = torch.repeat_interleave(codes, torch.tensor(n_paths)).to(job.device)
    return TrajectoryPool(
        StackedBlocks(makers),
        n_blocks=n_blocks,
        seed=seed,
        n_held=job.settings.pool_size,
        held_share=min(1.0, max(LIVE_SHARE, FEWEST_BLOCKS / n_blocks)) if are_live else 1.0,
        n_draws=job.settings.max_iter,
        # Half the memory, and finer than the pixels' grey values.
        dtype=torch.float32 if len(job.space.layout.event_shape) == 1 else torch.float16,
        labels=labels,
        end=paths.end,
        part=processes(),
    )
