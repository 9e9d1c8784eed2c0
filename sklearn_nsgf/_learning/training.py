"""The training loop: every network of the package is trained here."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from sklearn_nsgf._learning.checkpoint import Checkpoint, State
from sklearn_nsgf._learning.held_out import Distance
from sklearn_nsgf._learning.processes import processes
from sklearn_nsgf._model.leg import Curves
from sklearn_nsgf._torch import RandomStream, one_thread
from sklearn_nsgf._verbose import say
from sklearn_nsgf.flow import PathSample

WARM_UP = 0.05
# The averaged parameters remember about this share of the training.
AVERAGING = 0.1
LARGEST_GRADIENT_NORM = 1.0
N_EVALUATIONS = 50
# A perceptron with so many products of weights and points in a step trains in one thread: two take as long on
# an idle machine, and several times as long on a busy one.
FEW_PRODUCTS = 2**27
# Steps from one look at held-out rows to the next, at least and as a share of those so far, and steps before
# training may stop. Ten looks that bring nothing take about as many steps as the last improvement took.
LOOK_INTERVAL, LOOK_SHARE, FEWEST_STEPS = 10, 0.1, 200
# Standard errors by which a network must be better than none, and more for few rows, divided by the root of
# their number. Measured on 30 to 500 rows, a fifth of them held out, of 1 to 20 features: with less some
# networks are worse than none, with two errors most gains are missed.
N_ERRORS, N_MORE_ERRORS = 0.5, 2.0
# Standard errors by which a network must be better than the last improvement to be another one. With none it
# takes more than twice the steps to the same flows.
N_ERRORS_ON = 0.5

BatchSource = Callable[[int], PathSample]
Loss = Callable[[nn.Module, PathSample], Tensor]


class Stateful(Protocol):
    """A part of a training that can go on from what it was."""

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: Any) -> Any: ...


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
    verbose: int


class TrainingResult(NamedTuple):
    """What training leaves.

    Attributes
    ----------
    network : Module
        With the averaged parameters, the best ones if there was a criterion.
    curves : Curves
    interrupted : bool
        Whether Ctrl-C (KeyboardInterrupt) ended it.
    """

    network: nn.Module
    curves: Curves
    interrupted: bool


def train_network(
    network: nn.Module,
    draw: BatchSource,
    *,
    max_iter: int,
    batch_size: int,
    learning_rate: float,
    stream: RandomStream,
    loss: Loss = velocity_loss,
    constant_rate: bool = False,
    compile: bool = False,
    criterion: Callable[[nn.Module | None], Distance] | None = None,
    n_iter_no_change: int = 10,
    beats_network: bool = False,
    report: Callable[[nn.Module, Curves, bool], bool] | None = None,
    checkpoint: Checkpoint | None = None,
    verbose: bool = False,
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
    stream : RandomStream
        What the network draws from torch's global generators, if it does so in its first step or is said to.
        Such networks take turns where trainings run at the same time in several threads.
    loss : callable, default=velocity_loss
        Takes the network and a batch.
    constant_rate : bool, default=False
        Whether the rate stays after its warm-up, as it should where a training is continued.
    compile : bool, default=False
        Whether the training runs through `torch.compile`.
    criterion : callable, optional
        What held-out rows say about a network, or about None where nothing moves. It is asked before the
        first step, after every tenth of the steps so far, and at every evaluation. The best averaged network
        is kept if it is better than no network by ``0.5 + 2 / sqrt(n)`` standard errors, with n rows.
        Training stops when there was no improvement by half of one for `n_iter_no_change` looks and in half
        of the steps.
    n_iter_no_change : int, default=10
    beats_network : bool, default=False
        Whether it is the network at the start that has to be beaten, by however little.
    report : callable, optional
        Is called at every evaluation with the averaged network, the curves up to there, and whether this is
        the last one; the training ends if it returns true.
    checkpoint : Checkpoint, optional
        Keeps the training at every evaluation. If it has this training already, it goes on from there. `draw`
        then has a `state_dict`, as networks have.
    verbose : bool, default=False
        Whether to say the loss at every evaluation.

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
    >>> from sklearn_nsgf._torch import RandomStream
    >>> from sklearn_nsgf.flow import PathSample
    >>> from sklearn_nsgf.networks import make_network
    >>> def draw(n_samples):
    ...     return PathSample(torch.rand(n_samples), torch.randn(n_samples, 1), torch.ones(n_samples, 1))
    >>> options = {"max_iter": 20, "batch_size": 32, "learning_rate": 1e-3, "stream": RandomStream(0)}
    >>> result = train_network(make_network((1,)), draw, **options)
    >>> result.curves.loss[-1] < result.curves.loss[0]
    True
    """
    state = None if checkpoint is None else checkpoint.begin_training()
    if state is not None and "curves" in state:
        return _result_of(state, network, cast(Stateful, draw))
    # Lists, since to collect the parameters of a module takes as long as to clip them.
    parameters: list[Tensor] = list(network.parameters())
    team = processes()
    n_points = team.share(batch_size)
    trained = team.wrap(network)
    optimizer = _Adam(parameters)
    rate = _warm_up_then_cosine(max_iter, constant_rate)
    average = _MovingAverage(network, max_iter)
    stopping = None
    if criterion is not None:
        stopping = _EarlyStopping(team.ask_first(criterion), network, n_iter_no_change, beats_network)
    threads = one_thread if _is_quick(parameters, batch_size) else nullcontext()
    # The compiled function stands for the module that it calls.
    trained = cast(nn.Module, torch.compile(trained)) if compile else trained
    interval = evaluation_interval(max_iter)
    # A step and its loss are one entry: Ctrl-C can come between any two lines.
    records: list[tuple[int, float]] = []
    losses: list[Tensor] = []
    n_done, interrupted = 0, False
    parts: dict[str, Stateful] = {"network": network, "average": average, "optimizer": optimizer}
    parts |= {"stream": stream, "batches": cast(Stateful, draw)}
    parts |= {} if stopping is None else {"stopping": stopping}
    if state is not None:
        records = state["records"]
        n_done = records[-1][0]
        for name, part in parts.items():
            part.load_state_dict(state[name])

    def curves(n_kept: int) -> Curves:
        looks = [] if stopping is None else stopping.looks
        return Curves(
            [loss for _, loss in records],
            [value for _, value in looks],
            [step for step, _ in records],
            [step for step, _ in looks],
            n_done,
            n_kept,
        )

    try:
        for n_iter in range(n_done + 1, max_iter + 1):
            # As it will be used: the batch may come from where the network takes points.
            network.eval()
            batch = draw(n_points)
            network.train()
            with threads:
                optimizer.zero_grad()
                with stream.turn() if n_iter == 1 or stream.is_used else nullcontext():
                    batch_loss = loss(trained, batch)
                    # Of the mean over all processes each point is an equal part.
                    (batch_loss * (n_points * team.size / batch_size)).backward()
                nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT_NORM)
                optimizer.step(learning_rate * rate(n_iter - 1))
                average.update()
            losses.append(batch_loss.detach())
            n_done = n_iter
            last = n_iter == max_iter
            is_evaluation = last or n_iter % interval == 0
            if stopping is not None and (is_evaluation or stopping.is_due(n_iter)):
                with threads, stream.turn() if stream.is_used else nullcontext():
                    last |= stopping.look(average.network, n_iter)
            if is_evaluation or last:
                records.append((n_iter, _finite_mean(losses, n_iter)))
                losses = []
                if verbose:
                    say("iteration %d of %d, loss %.3g", n_iter, max_iter, records[-1][1])
                arguments = average.network, curves(n_done), last
                if (report is not None and team.ask_first(report)(*arguments)) or last:
                    break
                if checkpoint is not None:
                    checkpoint.keep(lambda: {"records": records} | _states(parts))
    except KeyboardInterrupt:
        if n_done == 0:
            raise
        interrupted = True
        if losses and (not records or records[-1][0] < n_done):
            records.append((n_done, _finite_mean(losses, n_done)))
    team.copy_first(average.network)
    n_kept = n_done if stopping is None else stopping.restore_best(average.network)
    learnt = curves(n_kept)
    if checkpoint is not None and not interrupted:
        left = _states({"network": average.network, "batches": cast(Stateful, draw)})
        checkpoint.end_training({"curves": learnt._asdict()} | left)
    return TrainingResult(average.network.eval(), learnt, interrupted)


def _states(parts: dict[str, Stateful]) -> State:
    return {name: part.state_dict() for name, part in parts.items()}


def _result_of(state: State, network: nn.Module, batches: Stateful) -> TrainingResult:
    """That of a training that was done before."""
    network.load_state_dict(state["network"])
    batches.load_state_dict(state["batches"])
    return TrainingResult(network.eval(), Curves(**state["curves"]), interrupted=False)


def _is_quick(parameters: list[Tensor], batch_size: int) -> bool:
    """Whether a step on a CPU is too short to be worth dividing between threads."""
    n_products = batch_size * sum(parameter.numel() for parameter in parameters)
    is_perceptron = all(parameter.ndim <= 2 for parameter in parameters)
    return parameters[0].device.type == "cpu" and is_perceptron and n_products <= FEW_PRODUCTS


def evaluation_interval(max_iter: int) -> int:
    """Iterations between two evaluations."""
    return math.ceil(max_iter / N_EVALUATIONS)


def n_evaluations(settings: Settings) -> int:
    """How many there are in a whole training."""
    return math.ceil(settings.max_iter / evaluation_interval(settings.max_iter))


def _finite_mean(losses: list[Tensor], n_iter: int) -> float:
    mean = processes().mean(torch.stack(losses).mean()).item()
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"The training loss is not finite after {n_iter} iterations. Lower learning_rate, or "
            "look for extreme outliers in the data."
        )
    return mean


class _EarlyStopping:
    """Keeps the network at the start and the best one after it, and says when to stop."""

    def __init__(
        self,
        criterion: Callable[[nn.Module | None], Distance],
        network: nn.Module,
        n_iter_no_change: int,
        beats_network: bool,
    ) -> None:
        self.criterion, self.n_iter_no_change = criterion, n_iter_no_change
        self.first = criterion(network if beats_network else None)
        self.n_errors = 0.0 if beats_network else N_ERRORS + N_MORE_ERRORS / math.sqrt(self.first.n_rows)
        self.first_state = copy.deepcopy(network.state_dict())
        self.looks = [(0, self.first.value)]
        # Step, distance and parameters, in one: Ctrl-C can come between any two lines.
        self.best = 0, self.first, self.first_state
        # Step and distance of the last network that was clearly better than those before.
        self.last_gain = 0, self.first

    def is_due(self, n_iter: int) -> bool:
        """Whether to look between two evaluations: while the steps since the last look are few."""
        n_last = self.looks[-1][0]
        return n_iter - n_last >= max(LOOK_INTERVAL, LOOK_SHARE * n_last)

    def look(self, network: nn.Module, n_iter: int) -> bool:
        """Ask the criterion about the network; return whether to stop."""
        distance = self.criterion(network)
        if distance.value < self.best[1].value:
            self.best = n_iter, distance, copy.deepcopy(network.state_dict())
        if distance.is_better_than(self.last_gain[1], N_ERRORS_ON):
            self.last_gain = n_iter, distance
        self.looks.append((n_iter, distance.value))
        n_gain = self.last_gain[0]
        n_looks = sum(step > n_gain for step, _ in self.looks)
        return n_looks >= self.n_iter_no_change and n_iter >= max(FEWEST_STEPS, 2 * n_gain)

    def state_dict(self) -> State:
        """What it has seen since the start."""
        n_best, distance, best_state = self.best
        n_gain, gain = self.last_gain
        return {
            "looks": self.looks,
            "best": [n_best, _to_state(distance), best_state],
            "last_gain": [n_gain, _to_state(gain)],
        }

    def load_state_dict(self, state: State) -> None:
        n_best, distance, best_state = state["best"]
        n_gain, gain = state["last_gain"]
        self.looks = state["looks"]
        self.best = n_best, _from_state(distance), best_state
        self.last_gain = n_gain, _from_state(gain)

    def restore_best(self, network: nn.Module) -> int:
        """Give the network its best parameters; return after how many steps it had them."""
        step, distance, state = self.best
        is_better = distance.is_better_than(self.first, self.n_errors)
        network.load_state_dict(state if is_better else self.first_state)
        return step if is_better else 0


def _to_state(distance: Distance) -> list[Any]:
    return [distance.value, *map(torch.from_numpy, distance[1:])]


def _from_state(state: list[Any]) -> Distance:
    value, *parts = state
    return Distance(value, *(part.numpy() for part in parts))


def _warm_up_then_cosine(max_iter: int, constant_rate: bool) -> Callable[[int], float]:
    n_warm_up = max(1, int(WARM_UP * max_iter))

    def factor(n_iter: int) -> float:
        decay = 1.0 if constant_rate else 0.5 * (1 + math.cos(math.pi * n_iter / max_iter))
        return min(1.0, (n_iter + 1) / n_warm_up) * decay

    return factor


class _Adam:
    """What `torch.optim.Adam` does by default, fused where it can be.

    That class imports torch's compiler, which takes more than a second, as long as a small fit.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.fused = parameters[0].device.type in ("cpu", "cuda")
        self.means = [torch.zeros_like(each) for each in parameters]
        self.squares = [torch.zeros_like(each) for each in parameters]
        devices = [each.device if self.fused else None for each in parameters]
        self.n_steps = [torch.zeros((), dtype=torch.float32, device=device) for device in devices]

    def state_dict(self) -> State:
        return {"means": self.means, "squares": self.squares, "n_steps": self.n_steps}

    def load_state_dict(self, state: State) -> None:
        for name, mine in self.state_dict().items():
            for tensor, kept in zip(mine, state[name], strict=True):
                tensor.copy_(kept)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take a step with that learning rate; a parameter without a gradient stays."""
        moved = [k for k, parameter in enumerate(self.parameters) if parameter.grad is not None]
        adam(
            [self.parameters[k] for k in moved],
            [cast(Tensor, self.parameters[k].grad) for k in moved],
            [self.means[k] for k in moved],
            [self.squares[k] for k in moved],
            [],
            [self.n_steps[k] for k in moved],
            fused=self.fused,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


class _MovingAverage:
    """Exponential moving average of a network over the last share of the steps, of those so far at first.

    Attributes
    ----------
    network : Module
        With the averaged parameters, and the buffers as they are.
    """

    def __init__(self, network: nn.Module, max_iter: int) -> None:
        self.network, self.trained = copy.deepcopy(network), network
        self.averages: list[Tensor] = list(self.network.parameters())
        self.parameters: list[Tensor] = list(network.parameters())
        self.n_steps, self.largest_window = 0, max(1.0, AVERAGING * max_iter)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters that a step has led to."""
        window = min(1 + AVERAGING * self.n_steps, self.largest_window)
        torch._foreach_lerp_(self.averages, self.parameters, 1 / window)
        for mine, theirs in zip(self.network.buffers(), self.trained.buffers(), strict=True):
            mine.copy_(theirs)
        self.n_steps += 1

    def state_dict(self) -> State:
        return {"network": self.network.state_dict(), "n_steps": self.n_steps}

    def load_state_dict(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        self.n_steps = state["n_steps"]
