"""NSGF++: a short Sinkhorn flow, then a straight one."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted, check_scalar

from sklearn_nsgf._base import BaseFlowTransport
from sklearn_nsgf._data.frame import blur_in_units
from sklearn_nsgf._flow_matching import FlowMatchingTransport
from sklearn_nsgf._learning.learn import FitJob, learn_leg, learn_times
from sklearn_nsgf._learning.paths import SinkhornPaths, StraightPaths
from sklearn_nsgf._model.leg import Leg
from sklearn_nsgf._parameters import COUNT, COUPLING, SHARED, SINKHORN, architecture
from sklearn_nsgf._sinkhorn_flow import SinkhornFlowTransport
from sklearn_nsgf._sklearn import Interval, StrOptions
from sklearn_nsgf._types import (
    Blur,
    CategoricalFeatures,
    ChannelAxis,
    Coupling,
    FrameKind,
    LabelMode,
    LayerSizes,
    Network,
    Path,
    Seed,
    Solver,
    StepSize,
)
from sklearn_nsgf.networks import TimePredictor

# Part of the steps that the first of two networks is trained for.
FIRST_SHARE = 0.25


class NSGFPlusPlus(BaseFlowTransport):
    """Transport between two samples by NSGF++: a short Sinkhorn flow, then a straight one.

    A few steps follow the learnt Sinkhorn gradient flow towards the target. A straight flow takes the points
    from where they are to the target, and corrects on the way what the first steps did wrong [1]_.

    Parameters
    ----------
    transition : {"direct", "predicted"}, default="direct"
        How the straight flow follows the Sinkhorn flow. With "direct" one network learns both at once: half
        of the way of the Sinkhorn flow, and the straight rest from the points that the network itself
        reaches in the first half, as it learns. "predicted" is the method of [1]_ (Algorithms 3 and 4): the
        whole Sinkhorn flow by one network, a straight flow between randomly paired source and target points
        by another, and a third that predicts at which time each result of the first enters the second.
    blur : float or (float, float), default=0.03
        Resolution of the Sinkhorn flow: the square root of the entropic temperature, as a fraction of the
        target's root mean squared pairwise distance. In a pair, the blur falls from the first value to the
        second along the flow; "direct" learns the first half of that, and "sinkhorn" couplings have the
        second value. A smaller blur follows finer detail and needs more data and time. A larger one gives a
        smoother map, which is easier to learn.
    n_flow_steps : int, default=5
        Number of steps of the simulated particle flows.
    n_sinkhorn_steps : int, default=2
        Number of steps of the learnt Sinkhorn flow, 1 to 5. [1]_ uses as many as `n_flow_steps`. For
        "direct", the training takes as many.
    step_size : "harmonic", float or array-like of shape (n_flow_steps,), default="harmonic"
        Steps eta_k of the particle flows, in (0, 1]. "harmonic" is 1 / (T - k): the steps cover equal parts
        of the way, and the last one ends on the target. A float is the paper's constant step: flows then go
        more than half of the way in the first half of the time.
    n_flows : int, default=32
        Number of particle flows in a whole training. They are made as it goes on: one that stops early makes
        fewer. A single one is made if each would take all rows of both samples.
    flow_batch_size : int, default=1024
        Number of source points and of target points in each particle flow, capped by the smaller sample.
        Larger flows are straighter; their cost grows with the square.
    sinkhorn_tol : float, default=0.002
        L1 error of the marginals at which a Sinkhorn problem counts as solved.
    n_straight_steps : int, default=8
        Number of steps of the straight flow. All steps of a point have the same length.
    coupling : {"exact", "independent", "sinkhorn"}, default="exact"
        How to pair the results of the Sinkhorn flow with target points for `transition="direct"`; see
        `FlowMatchingTransport`. "predicted" pairs at random.
    coupling_batch_size : int, default=512
        Number of points in each of the two paired minibatches, capped by the rows there are.
    n_couplings : int, default=256
        Number of paired minibatches in a whole training. They are made as it goes on: one that stops early
        makes fewer. For "direct" an eighth of them is held at a time, since older ones start where the
        network was before: with less than about eight, what it learnt from first is not replaced.
    pool_size : int or None, default=None
        Number of particle flows, and of paired minibatches, held at a time at most. Further ones replace the
        oldest. None holds as many as fit in 1 GiB, of flows and of minibatches.
    solver : {"euler", "midpoint", "heun", "rk4"}, default="euler"
        ODE integrator of both learnt flows.
    network : Module, callable or None, default=None
        Velocity network: a `torch.nn.Module`, which is copied and trained from its weights, or
        a callable that makes one from the shape of a point, ``(n_features,)`` or (C, H, W), and, for
        `label_mode="condition"`, the number of classes. It is called as ``network(t, x)``, or ``network(t, x,
        y)`` with class indices. None is a multi-layer perceptron for vectors and a
        `sklearn_nsgf.networks.UNet` for images.
    hidden_layer_sizes : "auto" or sequence of int, default="auto"
        Layer widths of the multi-layer perceptron. "auto" is three layers, of 128 for at most 32 features and
        of 256 for more. Ignored if `network` is given, and for images.
    learning_rate : "auto" or float, default="auto"
        Peak rate of Adam's schedule, a short warm-up followed by a cosine decay to zero. "auto" is 0.005 for
        the perceptron and 0.001 for other networks.
    batch_size : int, default=256
        Number of points in each optimiser step.
    max_iter : int, default=4000
        Number of optimiser steps, fewer of few rows (`early_stopping`). For "predicted" a quarter of them are
        for the first velocity network, the rest for the second, at least one for each, and the time predictor
        has as many as the second. With 0 the flow is `frame` alone, fitted to all rows: a baseline.
    early_stopping : "auto" or bool, default="auto"
        Whether to hold out rows, one of each group of neighbours, and watch an energy distance between where
        the flow takes those of the source, or noise, and those of the target. The best network is kept, or
        none if none is clearly better than `frame` alone; a warning says so. Training stops when the distance
        no longer improves. Of 4 to 499 rows that are not images all are held out in turn, as long as no
        network is kept: one learns on each fold, for 200 steps, and if these are better than `frame` alone
        one learns from all rows and is kept as it is, also for 200 steps, or in a generation for two a row if
        these are more; never for more than `max_iter`. Fewer than 4 rows keep the frame. "auto" holds rows
        out between two samples if either has fewer than 5 000, since a network can memorise so few, and in a
        generation of fewer than 500 rows that are not images; rows of earlier calls of `partial_fit` count.
        In one of more such rows none is held out, and a training takes two steps a row, too.
    validation_fraction : float, default=0.2
        Share of the rows that early stopping holds out: once, or of few rows in turn, in as many folds as go
        into the whole, at least two, of two rows or more.
    n_iter_no_change : int, default=10
        Number of looks at the held-out rows without improvement, by half a standard error, before training
        stops. Training also goes on for as many steps as the last improvement took, and 200 in all.
    label_mode : {"ignore", "condition", "couple"}, default="ignore"
        How `fit` uses class labels in `y`. "condition" learns one flow per class and shows the class to the
        network: `transform` and `sample` then take `labels`. "couple" sends the source points of a class only
        to target points of that class and hides the class from the network: new points need no label. With
        "couple", -1 marks an unlabelled row; its class comes from an entropic plan between the two samples.
    frame : {"auto", "none", "shift", "scale", "linear", "quantile"}, default="auto"
        Where the flow starts: what is known about source and target without a network. "linear" is the linear
        map between their means and covariances, "scale" the map between means and standard deviations,
        "shift" moves the mean, "none" leaves points where they are. The network learns the rest. For
        generation, "linear" gives the noise the covariance of the data, with more than 1 024 features in its
        256 leading directions; "none", "shift" and "scale" use its standard deviations. If the rows lie in up
        to 8 clusters, by the likelihood of held-out ones, such noise is drawn around each; for images, and
        with `standardize=False`, around up to 64 in any case. With `label_mode="condition"` the noise of each
        class has the mean and the covariance of that class, of its scores where columns are read as scores.
        "quantile" reads each column as normal scores, by its own quantiles in either sample, and starts at
        the linear map between those: marginals are right from the start, zeros, integers and bounds come back
        exactly, and heavy tails cost nothing. "auto" reads columns as scores if their values repeat or their
        tails are heavy. Otherwise it is "linear", unless a simpler one, or "quantile" for a single column,
        brings held-out rows closer to the target; with a source sample and more than 1 024 features it is
        "shift". With `standardize=False`, and for images, it reads no columns as scores.
    categorical_features : "from_dtype", array-like of str, int or bool, or None, default="from_dtype"
        Columns that hold categories: names, places or a mask. "from_dtype" takes those of a DataFrame with a
        categorical or boolean dtype. They are encoded inside, read as scores whatever `frame` is, and come
        back as the same categories. With categories in a DataFrame, answers are DataFrames.
    standardize : bool, default=True
        Whether each feature is scaled separately. If not, all features share one scale, and the transport
        minimises distances in the data's own geometry. Images always share one scale.
    image_shape : tuple of int or None, default=None
        (H, W), (H, W, C) or (C, H, W) if the rows of `X` are flattened images. Arrays of three or four
        dimensions hold images without it.
    channel_axis : {1, -1} or None, default=None
        Channel axis of an array of images, (n, C, H, W) or (n, H, W, C). None picks the axis with at most 4
        entries and raises an error if both or neither qualify.
    warm_start : bool, default=False
        Whether `fit` continues from the networks and units of the last fit, with new minibatches and a
        constant learning rate.
    checkpoint : str, path-like or None, default=None
        A file that keeps a long fit while it runs. A fit with the same parameters and data goes on from there
        if the process was killed, and ends with the same bytes on a CPU. It is removed when the fit is done.
    compile : bool, default=False
        Whether to train through `torch.compile`, which needs a compiler on a CPU.
    device : str, default="auto"
        "auto" uses CUDA if a CUDA GPU is present and the CPU otherwise. Also "cpu", "cuda", "cuda:1" or
        "mps".
    n_jobs : int, default=None
        Number of minibatches made at a time on the CPU. None uses torch's thread count unless
        `joblib.parallel_config` asks for more than one. The result does not depend on it.
    random_state : int, RandomState instance or None, default=None
        Seed of the minibatches, the initial network and the training. The same seed gives the same bytes on
        the same machine with the same number of torch threads.
    verbose : int, default=0
        With 1, a line tells of each phase when it is over; from 2 on, also of about 50 evaluations of each
        training. The lines are printed, or go to the logger "sklearn_nsgf" where logging is configured to
        show its INFO lines. Of several processes that train together the first one speaks.

    Attributes
    ----------
    model_ : FlowModel
        Everything that the fit learnt. The other attributes read it.
    sinkhorn_flow_ : SinkhornFlowTransport
        The first phase of "predicted", fitted, with the present parameters. Its time from 0 to 1 is 0 to 0.5
        here. Absent for "direct": ``integrate(X, t_end=0.5)`` follows its first phase.
    straight_flow_ : FlowMatchingTransport or None
        The second phase of "predicted" in the same way, a flow of its own from the source to the target. None
        if `fit` was interrupted before this phase: `transform` then follows the first phase alone. Absent for
        "direct".
    time_predictor_ : Module or None
        The network that predicts the transition time; None for "direct".
    loss_curve_ : list of float
        Training loss at about 50 evaluations, each averaged since the last one; of the velocity networks of
        "predicted" one after the other.
    validation_curve_ : list of float
        Energy distance of held-out rows in the same way, with exponent 1/2 and in standardised units, from
        before the first step on; of few rows without and with the networks of the folds. Empty without early
        stopping.
    n_function_evaluations_ : int
        Number of evaluations of a velocity network in one `transform`.
    from_noise_ : bool
        Whether the source is the normal distribution, as after `fit(X)`.
    n_iter_ : int
        Number of optimiser steps of the velocity networks; of few rows, of those that are kept, or of a
        fold's.
    classes_ : ndarray of shape (n_classes,)
        The sorted labels; absent with `label_mode="ignore"`.
    device_ : str
        Device of the fit.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if `X` had any.

    See Also
    --------
    SinkhornFlowTransport : A Sinkhorn flow alone.
    FlowMatchingTransport : A straight flow alone.

    Notes
    -----
    Each phase has half of the time, and the argument `n_steps` of `integrate` is the number of steps in each
    phase. `transition="predicted"` has no inverse: `inverse_transform` raises an error.

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
        **SHARED,
        **SINKHORN,
        **COUPLING,
        "transition": [StrOptions({"direct", "predicted"})],
        "n_flow_steps": [COUNT],
        "n_sinkhorn_steps": [Interval(Integral, 1, 5, closed="both")],
        "n_straight_steps": [COUNT],
    }

    def __init__(
        self,
        *,
        transition: Literal["direct", "predicted"] = "direct",
        blur: Blur = 0.03,
        n_flow_steps: int = 5,
        n_sinkhorn_steps: int = 2,
        step_size: StepSize = "harmonic",
        n_flows: int = 32,
        flow_batch_size: int = 1024,
        sinkhorn_tol: float = 0.002,
        n_straight_steps: int = 8,
        coupling: Coupling = "exact",
        coupling_batch_size: int = 512,
        n_couplings: int = 256,
        pool_size: int | None = None,
        solver: Solver = "euler",
        network: Network = None,
        hidden_layer_sizes: LayerSizes = "auto",
        learning_rate: Literal["auto"] | float = "auto",
        batch_size: int = 256,
        max_iter: int = 4000,
        early_stopping: Literal["auto"] | bool = "auto",
        validation_fraction: float = 0.2,
        n_iter_no_change: int = 10,
        label_mode: LabelMode = "ignore",
        frame: FrameKind = "auto",
        categorical_features: CategoricalFeatures = "from_dtype",
        standardize: bool = True,
        image_shape: tuple[int, ...] | None = None,
        channel_axis: ChannelAxis = None,
        warm_start: bool = False,
        checkpoint: Path = None,
        compile: bool = False,
        device: str = "auto",
        n_jobs: int | None = None,
        random_state: Seed = None,
        verbose: int = 0,
    ) -> None:
        self.transition = transition
        self.blur = blur
        self.n_flow_steps = n_flow_steps
        self.n_sinkhorn_steps = n_sinkhorn_steps
        self.step_size = step_size
        self.n_flows = n_flows
        self.flow_batch_size = flow_batch_size
        self.sinkhorn_tol = sinkhorn_tol
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
        self.label_mode = label_mode
        self.frame = frame
        self.categorical_features = categorical_features
        self.standardize = standardize
        self.image_shape = image_shape
        self.channel_axis = channel_axis
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.compile = compile
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _n_tasks(self) -> int:
        return 1 if self.transition == "direct" else 3

    def _n_steps(self) -> tuple[int, ...]:
        check_scalar(self.n_sinkhorn_steps, "n_sinkhorn_steps", Integral, min_val=1, max_val=5)
        return self.n_sinkhorn_steps, self.n_straight_steps

    def _learn(self, job, before, model_of):
        old_legs = () if before is None else before.legs
        blur = blur_in_units(self.blur, job.space.frame)
        paths = SinkhornPaths(
            n_blocks=self.n_flows,
            batch_size=self.flow_batch_size,
            blur=blur,
            n_steps=self.n_flow_steps,
            step_size=self.step_size,
            tol=self.sinkhorn_tol,
            n_jobs=self.n_jobs,
            t_end=0.5 if self.transition == "direct" else 1.0,
        )
        straight_paths = StraightPaths(
            n_blocks=self.n_couplings,
            batch_size=self.coupling_batch_size,
            coupling=self.coupling if self.transition == "direct" else "independent",
            # Of a blur that falls, the last value.
            blur=float(np.ravel(blur)[-1]),
            n_jobs=self.n_jobs,
        )
        if self.transition == "predicted":
            old_legs = old_legs if len(old_legs) == 2 else (None, None)
            return _learn_predicted(self, (paths, straight_paths), job, old_legs, model_of)
        leg, interrupted = learn_leg(
            type(self).__name__,
            paths,
            architecture(self, job.space.layout.event_shape, job.space.classes.n_seen),
            (self._n_steps(), self.solver),
            job,
            old_legs[0] if len(old_legs) == 1 else None,
            model_of,
            second_paths=straight_paths,
        )
        return model_of(leg), interrupted

    @property
    def sinkhorn_flow_(self) -> SinkhornFlowTransport:
        """The first phase of "predicted" as an estimator, with the parameters as they are now."""
        return _as_estimator(
            SinkhornFlowTransport,
            self,
            0,
            n_steps=self.n_sinkhorn_steps,
            # One for each of `n_flow_steps` would not fit.
            step_size=self.step_size if np.ndim(self.step_size) == 0 else "harmonic",
        )

    @property
    def straight_flow_(self) -> FlowMatchingTransport | None:
        """The second phase of "predicted" as an estimator, with the parameters as they are now."""
        blur = float(np.ravel(self.blur)[-1])
        return _as_estimator(
            FlowMatchingTransport,
            self,
            1,
            blur=blur,
            coupling="independent",
            n_steps=self.n_straight_steps,
        )

    @property
    def time_predictor_(self) -> TimePredictor | None:
        """The network that predicts the transition time."""
        leg = self._fitted_model.legs[-1]
        return None if leg is None else leg.time_predictor

    def transition_time(self, X: ArrayLike, *, labels: ArrayLike | None = None) -> NDArray[Any]:
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
        X, codes = self._check_points(X, labels)
        return self.model_.entry_times(X, codes, self._integration())


def _divide(job: FitJob) -> tuple[FitJob, FitJob]:
    """A job for each of the two velocity networks: together they have the steps, and each at least one."""
    max_iter = job.settings.max_iter
    n_least = min(1, max_iter)
    n_first = max(n_least, round(FIRST_SHARE * max_iter))
    n_second = max(n_least, max_iter - n_first)
    first, second = (
        job._replace(settings=job.settings._replace(max_iter=n_steps)) for n_steps in (n_first, n_second)
    )
    return first, second


def _as_estimator(kind: type, whole: NSGFPlusPlus, leg: int, **parameters):
    """One leg as an estimator of its own, with the parameters that it shares with the whole."""
    if len(whole._fitted_model.legs) == 1:
        raise AttributeError(
            "With transition='direct' one network has both phases: follow the first one with "
            "integrate(X, t_end=0.5), and the second one from there with t_start=0.5."
        )
    if whole.model_.legs[leg] is None:
        return None
    names = kind().get_params(deep=False)
    shared = {name: getattr(whole, name) for name in names if hasattr(whole, name)}
    estimator = kind(**{**shared, **parameters})
    estimator.model_ = whole.model_.alone(leg)
    return estimator


def _learn_predicted(est: NSGFPlusPlus, both_paths, job: FitJob, before, model_of):
    """Learn a Sinkhorn flow, then when its results enter a straight flow, and then that: Algorithm 3."""
    old_first, old_second = before
    first_job, second_job = _divide(job)
    network = architecture(est, job.space.layout.event_shape, job.space.classes.n_seen)
    name, paths, straight_paths = type(est).__name__, *both_paths
    first, interrupted = learn_leg(
        name,
        paths,
        network,
        ((est.n_sinkhorn_steps,), est.solver),
        first_job,
        old_first,
        lambda leg: model_of(leg, old_second),
    )
    second = old_second
    if not interrupted:
        try:
            second, interrupted = _learn_straight(
                est, straight_paths, network, second_job, old_second, lambda leg: model_of(first, leg)
            )
        except KeyboardInterrupt:
            interrupted = True
    return model_of(first, second), interrupted


def _learn_straight(
    est: NSGFPlusPlus, paths: StraightPaths, network: dict, job: FitJob, before: Leg | None, model_with
) -> tuple[Leg | None, bool]:
    """Learn the straight flow, and the time at which points enter it."""
    sizes, predictor = network["hidden_layer_sizes"], None
    if before is not None:
        sizes, predictor = before.predictor_sizes, before.time_predictor
    predictor, interrupted = learn_times(paths, sizes, job, predictor)
    if interrupted:
        return before, True
    return learn_leg(
        type(est).__name__,
        paths,
        network,
        ((est.n_straight_steps,), est.solver),
        job,
        before,
        model_with,
        time_predictor=predictor,
        predictor_sizes=sizes,
    )
