"""The training loop: every network of the package is trained here."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sklearn_nsgf.flow import PathSample

logger = logging.getLogger("sklearn_nsgf")

WARM_UP = 0.05
# The averaged parameters remember about this share of the training.
AVERAGING = 0.1
LARGEST_GRADIENT_NORM = 1.0
N_EVALUATIONS = 50

BatchSource = Callable[[int], PathSample]
Loss = Callable[[nn.Module, PathSample], Tensor]


def velocity_loss(network: nn.Module, batch: PathSample) -> Tensor:
    """Mean squared error of the velocity at a point and its time, and in its class if it has one."""
    classes = () if batch.labels is None else (batch.labels,)
    return (network(batch.t, batch.x_t, *classes) - batch.v_t).square().mean()


def time_loss(network: nn.Module, batch: PathSample) -> Tensor:
    """Mean squared error of the time that a point shows."""
    return (network(batch.x_t) - batch.t).square().mean()


class Settings(NamedTuple):
    """What an estimator's parameters say about the training of each of its networks."""

    max_iter: int
    batch_size: int
    learning_rate: float
    n_iter_no_change: int
    compile: bool
    pool_size: int | None
    verbose: bool


class TrainingResult(NamedTuple):
    """What training leaves.

    Attributes
    ----------
    network : Module
        With the averaged parameters.
    loss_curve : list of float
        Training loss, averaged between two evaluations.
    validation_curve : list of float
        Loss of the averaged network on the validation batch at every evaluation after the first
        15 % of `max_iter`; empty without one.
    loss_steps, validation_steps : list of int
        Optimiser steps at which the values of both curves were taken.
    n_iter : int
        Optimiser steps taken.
    interrupted : bool
        Whether Ctrl-C (KeyboardInterrupt) ended it.
    """

    network: nn.Module
    loss_curve: list[float]
    validation_curve: list[float]
    loss_steps: list[int]
    validation_steps: list[int]
    n_iter: int
    interrupted: bool


def train_network(
    network: nn.Module,
    draw: BatchSource,
    *,
    max_iter: int,
    batch_size: int,
    learning_rate: float,
    loss: Loss = velocity_loss,
    constant_rate: bool = False,
    compile: bool = False,
    validation: PathSample | None = None,
    n_iter_no_change: int = 10,
    report: Callable[[nn.Module, bool], bool] | None = None,
) -> TrainingResult:
    """Fit a network to batches by stochastic gradient descent.

    Adam with a linear warm-up and a cosine decay, gradients clipped, parameters averaged over
    about the last tenth of the training (exponential moving average).

    Parameters
    ----------
    network : Module
        Trained in place, on the device where it lies.
    draw : callable
        Takes a number of samples, returns a `PathSample` on that device.
    max_iter : int
        Number of optimiser steps.
    batch_size : int
    learning_rate : float
        Largest rate of the schedule.
    loss : callable, default=velocity_loss
        Takes the network and a batch.
    constant_rate : bool, default=False
        Whether the rate stays after its warm-up, as it should where a training is continued.
    compile : bool, default=False
        Whether the training runs through `torch.compile`.
    validation : PathSample, optional
        Held-out batch. With it training stops when the averaged network's loss on it has not
        improved for `n_iter_no_change` evaluations, and the best parameters are kept. The first
        evaluation comes when the warm-up and the average's first window are over: before that
        the loss says more about the start than about the training.
    n_iter_no_change : int, default=10
    report : callable, optional
        Is called at every evaluation with the averaged network and whether this is the last one; the
        training ends if it returns true.

    Returns
    -------
    TrainingResult

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    KeyboardInterrupt
        If it comes before the first step is done; later it ends the training.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf._learning.training import train_network
    >>> from sklearn_nsgf.flow import PathSample
    >>> from sklearn_nsgf.networks import make_network
    >>> def draw(n_samples):
    ...     return PathSample(torch.rand(n_samples), torch.randn(n_samples, 1), torch.ones(n_samples, 1))
    >>> result = train_network(make_network((1,)), draw, max_iter=20, batch_size=32, learning_rate=1e-3)
    >>> result.loss_curve[-1] < result.loss_curve[0]
    True
    """
    fused = next(network.parameters()).device.type in ("cpu", "cuda")
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=fused)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_up_then_cosine(max_iter, constant_rate))
    average = AveragedModel(
        network, multi_avg_fn=_moving_average(max_iter, lambda: int(average.n_averaged.item()))
    )
    stopping = None if validation is None else _EarlyStopping(loss, validation, batch_size, n_iter_no_change)
    # The compiled function stands for the module that it calls.
    trained = cast(nn.Module, torch.compile(network)) if compile else network
    interval = evaluation_interval(max_iter)
    loss_curve: list[float] = []
    losses: list[Tensor] = []
    loss_steps: list[int] = []
    validation_steps: list[int] = []
    n_done, interrupted = 0, False
    network.train()
    try:
        for n_iter in range(1, max_iter + 1):
            batch_loss = loss(trained, draw(batch_size))
            optimizer.zero_grad()
            batch_loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT_NORM)
            optimizer.step()
            scheduler.step()
            average.update_parameters(network)
            losses.append(batch_loss.detach())
            n_done = n_iter
            if n_iter % interval == 0 or n_iter == max_iter:
                loss_curve.append(_finite_mean(losses, n_iter))
                loss_steps.append(n_iter)
                losses.clear()
                logger.debug("iteration %d of %d: loss %.3g", n_iter, max_iter, loss_curve[-1])
                last = n_iter == max_iter
                if stopping is not None and n_iter >= (WARM_UP + AVERAGING) * max_iter:
                    last |= stopping.update(average)
                    validation_steps.append(n_iter)
                if (report is not None and report(average.module, last)) or last:
                    break
    except KeyboardInterrupt:
        if n_done == 0:
            raise
        interrupted = True
        if losses:
            loss_curve.append(_finite_mean(losses, n_done))
            loss_steps.append(n_done)
    if stopping is not None and stopping.curve:
        average.load_state_dict(stopping.best_state)
    validation_curve = stopping.curve if stopping else []
    return TrainingResult(
        average.module.eval(), loss_curve, validation_curve, loss_steps, validation_steps, n_done, interrupted
    )


def evaluation_interval(max_iter: int) -> int:
    """Iterations between two evaluations."""
    return math.ceil(max_iter / N_EVALUATIONS)


def _finite_mean(losses: list[Tensor], n_iter: int) -> float:
    mean = torch.stack(losses).mean().item()
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"The training loss is not finite after {n_iter} iterations. Lower learning_rate, or "
            "look for extreme outliers in the data."
        )
    return mean


class _EarlyStopping:
    """Keeps the best parameters and counts the evaluations without an improvement."""

    def __init__(self, loss: Loss, validation: PathSample, batch_size: int, n_iter_no_change: int) -> None:
        self.loss, self.n_iter_no_change = loss, n_iter_no_change
        fields = [field.split(batch_size) for field in validation if field is not None]
        self.batches = [PathSample(*part) for part in zip(*fields, strict=True)]
        self.n_points = len(validation.t)
        self.curve: list[float] = []

    @torch.no_grad()
    def update(self, network: nn.Module) -> bool:
        """Evaluate the network; return whether to stop."""
        network.eval()
        sums = [self.loss(network, batch) * len(batch.t) for batch in self.batches]
        self.curve.append(torch.stack(sums).sum().item() / self.n_points)
        network.train()
        best = int(np.argmin(self.curve))
        if best == len(self.curve) - 1:
            self.best_state = copy.deepcopy(network.state_dict())
        return len(self.curve) - 1 - best >= self.n_iter_no_change


def _warm_up_then_cosine(max_iter: int, constant_rate: bool) -> Callable[[int], float]:
    n_warm_up = max(1, int(WARM_UP * max_iter))

    def factor(n_iter: int) -> float:
        decay = 1.0 if constant_rate else 0.5 * (1 + math.cos(math.pi * n_iter / max_iter))
        return min(1.0, (n_iter + 1) / n_warm_up) * decay

    return factor


def _moving_average(max_iter: int, n_averaged: Callable[[], int]) -> Callable[..., None]:
    """Exponential moving average over the last share of the steps, of those so far at first."""

    @torch.no_grad()
    def update(averages: list[Tensor], parameters: list[Tensor], _: Tensor) -> None:
        window = min(1 + AVERAGING * n_averaged(), max(1.0, AVERAGING * max_iter))
        torch._foreach_lerp_(averages, parameters, 1 / window)

    return update
