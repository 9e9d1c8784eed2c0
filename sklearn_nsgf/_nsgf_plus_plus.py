"""NSGF++: a short Sinkhorn flow, then a straight one."""

from __future__ import annotations

import copy
import logging
import math
from functools import partial
from numbers import Integral

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted, check_scalar

from sklearn_nsgf._base import (
    MAX_SEED,
    BaseFlowTransport,
    FitJob,
    NetworkFlowTransport,
    from_arrays,
    in_chunks,
    to_arrays,
)
from sklearn_nsgf._flow_matching import FlowMatchingTransport
from sklearn_nsgf._sinkhorn_flow import SinkhornFlowTransport, auto_blur
from sklearn_nsgf._sklearn import Interval, StrOptions
from sklearn_nsgf._strata import Stratum
from sklearn_nsgf._torch import isolated_rng, make_generator
from sklearn_nsgf._training import evaluation_interval, time_loss, train_network
from sklearn_nsgf._validation import as_rows, check_samples, float_dtype
from sklearn_nsgf.flow import PushforwardSampler
from sklearn_nsgf.networks import TimePredictor

logger = logging.getLogger("sklearn_nsgf")

# Results of the first phase that the second one keeps, for its `sample`.
N_ENDS = 1000
# Automatic blur, in units of that of a Sinkhorn flow alone.
AUTO_BLUR = 2.0
# What both phases have of the estimator that is made of them.
_SHARED_STATE = (
    "n_features_in_",
    "feature_names_in_",
    "classes_",
    "_layout",
    "_scaling",
    "_dtypes",
    "_label_mode",
    "_source_rows",
    "_n_seen",
)


class NSGFPlusPlus(BaseFlowTransport):
    """Transport between two samples by NSGF++: a short Sinkhorn flow, then a straight one.

    The first few steps follow the learnt Sinkhorn gradient flow, which brings the points near the target
    at once; the rest is a straight flow, which mends what is left of the difference [1]_.

    Parameters
    ----------
    transition : {"direct", "predicted"}, default="direct"
        Where the straight flow starts. "predicted" is the method of [1]_ (Algorithms 3 and 4): the
        straight flow is learnt between randomly paired points of source and target, and a network
        predicts the time at which each result of the Sinkhorn flow lies on it. "direct" learns the straight
        flow from the results of the Sinkhorn flow's network itself, so that it starts where that stops.
    blur : "auto", float or (float, float), default="auto"
        How coarsely the flow sees the clouds: the square root of the entropic temperature, as a
        fraction of the target's root mean squared pairwise distance. A pair is the first and the last
        value, between which the blur falls along the flow. Smaller follows finer detail and needs
        more data and time; larger gives a smoother map that is easier to learn. "auto" depends on
        the number of features and is twice that of `SinkhornFlowTransport`: the second phase mends what
        the first one leaves undone, and a smoother first one is learnt better.
    scaling : float, default=0.5
        Ratio of the annealing from a quarter of the data's diameter down to the blur, in (0, 1).
    n_flow_steps : int, default=5
        Number of steps of the particle flows that are simulated.
    n_sinkhorn_steps : int, default=2
        Number of steps of the learnt Sinkhorn flow, 1 to 5. [1]_ has as many as `n_flow_steps`.
    step_size : "harmonic", float or array-like of shape (n_flow_steps,), default="harmonic"
        Steps eta_k of the particle flows, in (0, 1]. "harmonic" is 1 / (T - k): equal parts of the
        way, the whole of it at the last step. A float is the paper's constant step.
    n_flows : int, default=32
        Number of minibatch flows in the trajectory pool.
    flow_batch_size : int, default=1024
        Source points and target points in each flow; at most the training rows of the smaller.
        Larger ones make the flow straighter and cost their square.
    sinkhorn_tol : float, default=0.002
        L1 error of the marginals at which a Sinkhorn problem counts as solved.
    sinkhorn_max_iter : int, default=1000
        Bound on the iterations of a Sinkhorn problem.
    n_straight_steps : int, default=8
        Number of steps of the straight flow, each of the same length for a point.
    coupling : {"exact", "independent", "sinkhorn"}, default="exact"
        How the results of the Sinkhorn flow are paired with the target for `transition="direct"`; see
        `FlowMatchingTransport`. "predicted" pairs at random.
    coupling_batch_size : int, default=512
        Points in each of the two minibatches that are paired; at most the rows there are.
    n_couplings : int, default=512
        Number of paired minibatches in the whole of the training.
    pool_size : int or None, default=None
        Flows, and later paired minibatches, held at a time; later ones are made while the networks are
        trained, and take the place of the first. None holds as many as 1 GiB can.
    solver : {"euler", "midpoint", "heun", "rk4"}, default="euler"
        Integrator of the learnt flows.
    network : Module, callable or None, default=None
        Velocity network of both phases: a `torch.nn.Module` (copied, its weights are the start), or
        a callable that makes one from the shape of a point, ``(n_features,)`` or (C, H, W) for images, and
        for `labels="condition"` the number of classes. It is called as ``network(t, x)``, with the class
        indices as ``network(t, x, y)``. None is a multi-layer perceptron, and a
        `sklearn_nsgf.networks.UNet` for images.
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
        Widths of the perceptron's layers; not used with a `network`.
    learning_rate : "auto" or float, default="auto"
        Largest rate of Adam's schedule: a short warm-up, then a cosine to zero. "auto" is 0.005 for the
        perceptron and 0.001 for other networks.
    batch_size : int, default=256
        Points in each optimiser step.
    max_iter : int, default=4000
        Number of optimiser steps of each network.
    early_stopping : "auto" or bool, default="auto"
        Whether to hold out rows of both clouds, and stop when the loss on flows between them stops
        improving. The best network is kept. "auto" does so if there is a source sample and one
        of the two has fewer than 5 000 rows: velocities of so few points can be learnt by heart. Noise is
        drawn afresh.
    validation_fraction : float, default=0.1
        Share of the rows to hold out for early stopping.
    n_iter_no_change : int, default=10
        Evaluations without an improvement before stopping; there are about 50 in `max_iter`.
    labels : {"ignore", "condition", "couple"}, default="ignore"
        What `fit` does with class labels in `y`. "condition" learns a flow for each class, and the network
        sees which: `transform` and `sample` take `labels`. With "couple" the points of a class in
        the source only go to points of that class in the target, and the network does not see it: new
        points need no label. There -1 stands for an unknown class: an entropic plan between both samples
        tells the most probable one.
    standardize : bool, default=True
        Whether every feature has a scale of its own. Otherwise one scale serves all, and the distances
        that the transport minimises are those of the data. Images have one scale in any case.
    image_shape : tuple of int or None, default=None
        (H, W), (H, W, C) or (C, H, W) where `X` holds images as flat rows. Arrays of three or four
        dimensions hold images without it.
    channel_axis : {1, -1} or None, default=None
        Axis of the channels in an array of images, (n, C, H, W) or (n, H, W, C). None finds it: the axis
        with at most 4 entries, if that is only one of the two.
    warm_start : bool, default=False
        Whether `fit` goes on from the networks and the units of the last fit, with new minibatches and
        a constant learning rate.
    compile : bool, default=False
        Whether to train through `torch.compile`, which needs a compiler on a CPU.
    device : str, default="auto"
        "auto" is CUDA where there is a CUDA GPU and else the CPU; "cpu", "cuda", "cuda:1", "mps".
    n_jobs : int, default=None
        Minibatches at a time on the CPU. None means as many as torch has threads unless
        `joblib.parallel_config` asks for more than one. The result is the same for any number.
    random_state : int, RandomState instance or None, default=None
        Seed of the minibatches, the initial network and the training. The same seed gives the
        same bytes on the same machine with the same number of torch threads.
    verbose : int, default=0
        Whether to log a line for each phase to the logger "sklearn_nsgf".

    Attributes
    ----------
    sinkhorn_flow_ : SinkhornFlowTransport
        The first phase, fitted. Its time from 0 to 1 is 0 to 0.5 here.
    straight_flow_ : FlowMatchingTransport or None
        The second phase, fitted; None if `fit` was interrupted before it. `transform` is then that of the
        first phase. Its time from 0 to 1 is 0.5 to 1 here.
    time_predictor_ : Module or None
        The network that predicts the transition time; None for "direct".
    n_function_evaluations_ : int
        Evaluations of the two velocity networks that one `transform` costs.
    n_iter_ : int
        Optimiser steps taken for both velocity networks.
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; not with `labels="ignore"`.
    device_ : str
        Device of the fit.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if `X` had any.

    See Also
    --------
    SinkhornFlowTransport : The first phase.
    FlowMatchingTransport : The second phase.

    Notes
    -----
    `integrate` takes as `n_steps` the number of steps in each phase. With `transition="predicted"` there
    is no way back: `inverse_transform` raises.

    References
    ----------
    .. [1] Zhu, Wang, Zhang, Zhao, Qian. Neural Sinkhorn Gradient Flow. arXiv:2401.14069, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf import NSGFPlusPlus
    >>> rng = np.random.default_rng(0)
    >>> X_src = rng.normal(size=(500, 2))
    >>> X_tgt = rng.normal([5, -3], [0.5, 2], size=(400, 2))
    >>> est = NSGFPlusPlus(n_flows=4, flow_batch_size=256, n_couplings=8, max_iter=200, random_state=0)
    >>> est = est.fit(X_src, X_tgt)
    >>> moved = est.transform(rng.normal(size=(1000, 2)))
    >>> bool(np.all(np.abs(moved.mean(axis=0) - [5, -3]) < 0.3))
    True
    >>> est.n_function_evaluations_
    10
    """

    _parameter_constraints: dict = {
        **SinkhornFlowTransport._parameter_constraints,
        **FlowMatchingTransport._parameter_constraints,
        "blur": SinkhornFlowTransport._parameter_constraints["blur"],
        "transition": [StrOptions({"direct", "predicted"})],
        "n_flow_steps": [Interval(Integral, 1, None, closed="left")],
        "n_sinkhorn_steps": [Interval(Integral, 1, 5, closed="both")],
        "n_straight_steps": [Interval(Integral, 1, None, closed="left")],
    }
    del _parameter_constraints["n_steps"]

    def __init__(
        self,
        *,
        transition="direct",
        blur="auto",
        scaling=0.5,
        n_flow_steps=5,
        n_sinkhorn_steps=2,
        step_size="harmonic",
        n_flows=32,
        flow_batch_size=1024,
        sinkhorn_tol=0.002,
        sinkhorn_max_iter=1000,
        n_straight_steps=8,
        coupling="exact",
        coupling_batch_size=512,
        n_couplings=512,
        pool_size=None,
        solver="euler",
        network=None,
        hidden_layer_sizes=(256, 256, 256),
        learning_rate="auto",
        batch_size=256,
        max_iter=4000,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=10,
        labels="ignore",
        standardize=True,
        image_shape=None,
        channel_axis=None,
        warm_start=False,
        compile=False,
        device="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.transition = transition
        self.blur = blur
        self.scaling = scaling
        self.n_flow_steps = n_flow_steps
        self.n_sinkhorn_steps = n_sinkhorn_steps
        self.step_size = step_size
        self.n_flows = n_flows
        self.flow_batch_size = flow_batch_size
        self.sinkhorn_tol = sinkhorn_tol
        self.sinkhorn_max_iter = sinkhorn_max_iter
        self.n_straight_steps = n_straight_steps
        self.coupling = coupling
        self.coupling_batch_size = coupling_batch_size
        self.n_couplings = n_couplings
        self.pool_size = pool_size
        self.solver = solver
        self.network = network
        self.hidden_layer_sizes = hidden_layer_sizes
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.labels = labels
        self.standardize = standardize
        self.image_shape = image_shape
        self.channel_axis = channel_axis
        self.warm_start = warm_start
        self.compile = compile
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _n_phases(self) -> int:
        return 3 + (self.transition == "predicted")

    def _learn(self, job: FitJob) -> bool:
        # What there is stays as it is until its successor is there.
        sinkhorn, straight, predictor = SinkhornFlowTransport(), None, None
        if self.__sklearn_is_fitted__():
            sinkhorn = copy.copy(self.sinkhorn_flow_)
            if (self.time_predictor_ is None) == (self.transition == "direct"):
                straight, predictor = self.straight_flow_, copy.deepcopy(self.time_predictor_)
        self._configure(sinkhorn, n_steps=self.n_flow_steps)
        complete = partial(self._with_phase, sinkhorn, self.n_sinkhorn_steps, "sinkhorn_flow_")
        interrupted = sinkhorn._learn(job._replace(tasks=job.tasks._replace(complete=complete)))
        # From now on as many as the second phase counts on.
        sinkhorn.set_params(n_steps=self.n_sinkhorn_steps)
        sinkhorn.device_ = str(job.device)
        if not interrupted:
            try:
                interrupted, straight, predictor = self._learn_straight(sinkhorn, straight, predictor, job)
            except KeyboardInterrupt:
                interrupted = True
        self.sinkhorn_flow_, self.straight_flow_, self.time_predictor_ = sinkhorn, straight, predictor
        self.n_iter_ = sum(phase.n_iter_ for phase in self._phases())
        return interrupted

    def _learn_straight(self, sinkhorn, straight, predictor, job: FitJob):
        """Whether Ctrl-C ended it, the straight flow and the time predictor."""
        before = straight
        straight = FlowMatchingTransport() if before is None else copy.copy(before)
        self._configure(straight, n_steps=self.n_straight_steps)
        # Of a blur that falls, the last value.
        straight.blur = float(np.ravel(straight.blur)[-1])
        if self.transition == "direct":
            job = job._replace(
                training=_pushed(sinkhorn, job.training), held_out=_pushed(sinkhorn, job.held_out)
            )
            straight._scaling = self._scaling.at_target()
            straight._source_rows = self._ends(straight, before, job)
        else:
            straight.set_params(coupling="independent")
            predictor, interrupted = self._learn_times(predictor, straight, job)
            if interrupted:
                return True, before, None if before is None else predictor
        found = {"sinkhorn_flow_": sinkhorn, "time_predictor_": predictor}
        complete = partial(self._with_phase, straight, self.n_straight_steps, "straight_flow_", **found)
        interrupted = straight._learn(job._replace(tasks=job.tasks._replace(complete=complete)))
        straight.device_ = str(job.device)
        return interrupted, straight, predictor

    def _ends(
        self, straight: FlowMatchingTransport, before: FlowMatchingTransport | None, job: FitJob
    ) -> list[np.ndarray]:
        """Results of the first phase, by the class that the network sees, for the second one's `sample`.

        A class that this part of the data lacks keeps those of `before`.
        """
        rng, dtype = np.random.default_rng(job.rng.randint(MAX_SEED)), float_dtype(self._dtypes[1])
        rows: dict[int, list[np.ndarray]] = {}
        for stratum in job.training:
            n_ends = int(min(max(1, round(N_ENDS * stratum.share)), stratum.source.n_rows))
            ends = straight._scaling.decode(stratum.source.draw(n_ends, rng), 0.0, dtype)
            rows.setdefault(stratum.label or 0, []).append(ends)
        return [
            np.concatenate(rows[code]) if code in rows else before._source_rows[code]
            for code in range(len(self._n_seen))
        ]

    def _learn_times(self, predictor, straight, job: FitJob):
        """Algorithm 3, the phase-transition time predictor: on paths like those of the straight flow."""
        pool_seed, network_seed = job.rng.randint(MAX_SEED, size=2).tolist()
        pool = straight._make_pool(job.training, job, pool_seed)
        generator = make_generator(pool_seed, job.device)
        continues = predictor is not None
        n_steps = math.ceil(self.max_iter / evaluation_interval(self.max_iter))
        with torch.inference_mode(mode=False), torch.enable_grad(), isolated_rng(network_seed):
            if not continues:
                self._predictor_sizes = tuple(self.hidden_layer_sizes)
                predictor = self._new_predictor()
            with job.tasks.phase("time predictor", "evaluation", n_steps) as end_step:
                result = train_network(
                    predictor.to(job.device),
                    lambda n_samples: pool.sample(n_samples, generator),
                    max_iter=self.max_iter,
                    batch_size=self.batch_size,
                    learning_rate=self._rate(),
                    loss=time_loss,
                    constant_rate=continues,
                    report=lambda average, last: end_step(last=last),
                )
        if self.verbose:
            logger.info("trained the time predictor, loss %.3g", result.loss_curve[-1])
        return result.network.cpu(), result.interrupted

    def _new_predictor(self) -> TimePredictor:
        return TimePredictor(len(self._scaling.noise_std), self._predictor_sizes, self._layout.image_shape)

    def _with_phase(self, phase, n_steps, name, attributes, **found):
        """Fitted attributes of the whole from those of the phase that runs."""
        current = copy.copy(phase)
        vars(current).update(attributes)
        current.set_params(n_steps=n_steps)
        nothing = {"straight_flow_": None, "time_predictor_": None}
        return {**nothing, **found, name: current, "device_": attributes["device_"]}

    def _configure(self, phase: NetworkFlowTransport, n_steps: int) -> None:
        """Give a phase the parameters and the state that it shares with the whole."""
        parameters = {name: getattr(self, name, None) for name in phase.get_params(deep=False)}
        if self.blur == "auto":
            parameters["blur"] = AUTO_BLUR * auto_blur(len(self._scaling.noise_std))
        phase.set_params(**{**parameters, "n_steps": n_steps})
        for name in _SHARED_STATE:
            if hasattr(self, name):
                setattr(phase, name, getattr(self, name))

    def _phases(self) -> list[NetworkFlowTransport]:
        """The phases that there are, as the parameters now say that they should run."""
        phases = [self.sinkhorn_flow_, self.straight_flow_]
        check_scalar(self.n_sinkhorn_steps, "n_sinkhorn_steps", Integral, min_val=1, max_val=5)
        for phase, n_steps in zip(phases, [self.n_sinkhorn_steps, self.n_straight_steps], strict=True):
            if phase is not None:
                phase.set_params(n_steps=n_steps, solver=self.solver, device=self.device)
        return [phase for phase in phases if phase is not None]

    @property
    def n_function_evaluations_(self) -> int:
        """Evaluations of the two velocity networks that one `transform` costs."""
        check_is_fitted(self)
        return sum(phase.n_function_evaluations_ for phase in self._phases())

    def transition_time(self, X, *, labels=None):
        """Time on the straight path at which each point goes over to the straight flow.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Points of the source.
        labels : label or array-like of shape (n_samples,), default=None
            As in `transform`.

        Returns
        -------
        times : ndarray of shape (n_samples,)
            Between 0 and 1; 0 for `transition="direct"`, whose straight flow starts where the Sinkhorn
            flow ends.
        """
        check_is_fitted(self)
        X = as_rows(self, check_samples(self, X))
        codes = self._codes(labels, len(X), "rows of X")
        ends, _ = self._follow(self._scaling.encode(X, 0.0), codes, 0.0, 0.5, None, None, False)
        return self._transition_times(ends[-1])

    def _transition_times(self, Z: np.ndarray) -> np.ndarray:
        if self.time_predictor_ is None:
            return np.zeros(len(Z), dtype=Z.dtype)
        return in_chunks(lambda network, Z: network(Z), self.time_predictor_, self.device, Z)

    def _follow(self, Z, codes, t_start, t_end, n_steps, solver, return_path):
        phases = self._phases()
        # Each phase has half of the time.
        starts, ends = (np.clip([2 * t, 2 * t - 1], 0, 1) for t in (t_start, t_end))
        nodes, times = [Z[None]], [np.array([t_start])]
        for k in [0, 1] if t_start <= t_end else [1, 0]:
            if starts[k] == ends[k] or k == len(phases):
                continue
            start, end = starts[k], ends[k]
            if k == 1 and self.time_predictor_ is not None:
                self._check_direct(t_start <= 0.5 <= t_end)
                # What is left of the way is walked in the second half of the time.
                start = self._transition_times(nodes[-1][-1])
                end = start + (1 - start) * end
            leg, _ = phases[k]._follow(nodes[-1][-1], codes, start, end, n_steps, solver, return_path)
            nodes.append(leg[1:] if return_path else leg)
            leg_times = np.linspace(starts[k], ends[k], len(leg))[1:] if return_path else ends[k : k + 1]
            times.append((k + leg_times) / 2)
        if return_path:
            return np.concatenate(nodes), np.concatenate(times)
        return nodes[-1], times[-1]

    def _velocity(self, X, codes, t):
        straight = t >= 0.5
        self._check_direct(self.time_predictor_ is None or not straight.any())
        V = np.zeros_like(X)
        halves = [(~straight, 2 * t), (straight, 2 * t - 1)]
        for phase, (rows, times) in zip(self._phases(), halves, strict=False):
            if rows.any():
                V[rows] = 2 * phase._velocity(X[rows], None if codes is None else codes[rows], times[rows])
        return V

    def _check_direct(self, holds: bool) -> None:
        if not holds:
            raise ValueError(
                "With transition='predicted' the straight flow starts at a time that is predicted for each "
                "point where the Sinkhorn flow ends (t = 0.5): there is no way back from it, no start "
                "beyond it, and no velocity at a point there. Use transition='direct'."
            )

    def _clock(self, t):
        return np.minimum(2 * np.asarray(t), 1.0)

    def __getstate__(self):
        state = super().__getstate__()
        if state.get("time_predictor_") is not None:
            state["time_predictor_"] = to_arrays(state["time_predictor_"])
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if getattr(self, "time_predictor_", None) is not None:
            with isolated_rng(0):
                predictor = self._new_predictor()
            self.time_predictor_ = from_arrays(predictor, self.time_predictor_)


def _pushed(flow: SinkhornFlowTransport, strata: list[Stratum]) -> list[Stratum]:
    """The same flows from where the first phase ends."""
    return [
        each._replace(source=PushforwardSampler(each.source, partial(_push, flow, each.label)))
        for each in strata
    ]


def _push(flow: SinkhornFlowTransport, label: int | None, Z: np.ndarray) -> np.ndarray:
    codes = None if label is None else np.full(len(Z), label)
    ends, _ = flow._follow(Z, codes, 0.0, 1.0, None, None, False)
    return ends[-1]
