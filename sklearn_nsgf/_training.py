"""The training loop: every network of the package is trained here."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sklearn_nsgf.flow import PathSample

logger = logging.getLogger("sklearn_nsgf")

WARM_UP = 0.05
# The averaged parameters remember about this share of the training.
AVERAGING = 0.1
LARGEST_GRADIENT_NORM = 1.0
N_EVALUATIONS = 50

BatchSource = Callable[[int], PathSample]


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
    n_iter : int
        Optimiser steps taken.
    """

    network: nn.Module
    loss_curve: list[float]
    validation_curve: list[float]
    n_iter: int


def train_network(
    network: nn.Module,
    draw: BatchSource,
    *,
    max_iter: int,
    batch_size: int,
    learning_rate: float,
    validation: PathSample | None = None,
    n_iter_no_change: int = 10,
) -> TrainingResult:
    """Regress `network(t, x_t)` on `v_t` by mean squared error.

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
    validation : PathSample, optional
        Held-out batch. With it training stops when the averaged network's loss on it has not
        improved for `n_iter_no_change` evaluations, and the best parameters are kept. The first
        evaluation comes when the warm-up and the average's first window are over: before that
        the loss says more about the start than about the training.
    n_iter_no_change : int, default=10

    Returns
    -------
    TrainingResult

    Raises
    ------
    FloatingPointError
        If the loss is not finite.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nsgf._training import train_network
    >>> from sklearn_nsgf.flow import TrajectoryPool
    >>> from sklearn_nsgf.networks import make_network
    >>> paths = torch.tensor([[[0.0], [1.0]]])  # one particle that moves from 0 to 1
    >>> pool, generator = TrajectoryPool(paths), torch.Generator().manual_seed(0)
    >>> result = train_network(
    ...     make_network(1),
    ...     lambda n_samples: pool.sample(n_samples, generator),
    ...     max_iter=20,
    ...     batch_size=32,
    ...     learning_rate=1e-3,
    ... )
    >>> result.loss_curve[-1] < result.loss_curve[0]
    True
    """
    fused = next(network.parameters()).device.type in ("cpu", "cuda")
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=fused)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_up_then_cosine(max_iter))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(_ema_decay(max_iter)))
    stopping = None if validation is None else _EarlyStopping(validation, n_iter_no_change)
    interval = math.ceil(max_iter / N_EVALUATIONS)
    loss_curve: list[float] = []
    losses: list[Tensor] = []
    network.train()
    for n_iter in range(1, max_iter + 1):
        loss = _loss(network, draw(batch_size))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT_NORM)
        optimizer.step()
        scheduler.step()
        average.update_parameters(network)
        losses.append(loss.detach())
        if n_iter % interval == 0 or n_iter == max_iter:
            loss_curve.append(_finite_mean(losses, n_iter))
            losses = []
            logger.debug("iteration %d of %d: loss %.3g", n_iter, max_iter, loss_curve[-1])
            settled = n_iter >= (WARM_UP + AVERAGING) * max_iter
            if stopping is not None and settled and stopping.update(average):
                break
    if stopping is not None:
        average.load_state_dict(stopping.best_state)
    trained = average.module.eval()
    return TrainingResult(trained, loss_curve, stopping.curve if stopping else [], n_iter)


def _loss(network: nn.Module, batch: PathSample) -> Tensor:
    return (network(batch.t, batch.x_t) - batch.v_t).square().mean()


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

    def __init__(self, validation: PathSample, n_iter_no_change: int) -> None:
        self.validation, self.n_iter_no_change = validation, n_iter_no_change
        self.curve: list[float] = []

    @torch.no_grad()
    def update(self, network: nn.Module) -> bool:
        """Evaluate the network; return whether to stop."""
        network.eval()
        self.curve.append(_loss(network, self.validation).item())
        network.train()
        best = int(np.argmin(self.curve))
        if best == len(self.curve) - 1:
            self.best_state = copy.deepcopy(network.state_dict())
        return len(self.curve) - 1 - best >= self.n_iter_no_change


def _warm_up_then_cosine(max_iter: int) -> Callable[[int], float]:
    n_warm_up = max(1, int(WARM_UP * max_iter))

    def factor(n_iter: int) -> float:
        decay = 0.5 * (1 + math.cos(math.pi * n_iter / max_iter))
        return min(1.0, (n_iter + 1) / n_warm_up) * decay

    return factor


def _ema_decay(max_iter: int) -> float:
    return max(0.0, 1 - 1 / (AVERAGING * max_iter))
