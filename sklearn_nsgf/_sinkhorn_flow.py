"""NSGF: the Sinkhorn gradient flow, learnt."""

from __future__ import annotations

import logging
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from sklearn_nsgf._base import NetworkFlowTransport
from sklearn_nsgf._sklearn import Interval, StrOptions
from sklearn_nsgf._strata import Stratum
from sklearn_nsgf._validation import FlowScaling, warn_caller
from sklearn_nsgf.flow import SinkhornFlows, blur_schedule

logger = logging.getLogger("sklearn_nsgf")


class SinkhornFlowTransport(NetworkFlowTransport):
    """Transport between two samples by the neural Sinkhorn gradient flow (NSGF).

    Minibatches of the source are moved as particles along the Wasserstein gradient flow of the
    Sinkhorn divergence to minibatches of the target, and a network learns the velocity of all those
    flows as a function of place and time [1]_. The learnt flow transports any point, also new ones;
    source and target need no pairing and may differ in size.

    Everything is solved in standardised units: answers follow a change of units and moving one
    of the clouds.

    Parameters
    ----------
    blur : "auto", float or (float, float), default="auto"
        How coarsely the flow sees the clouds: the square root of the entropic temperature, as a
        fraction of the target's root mean squared pairwise distance. A pair is the first and the last
        value, between which the blur falls along the flow. Smaller follows finer detail and needs
        more data and time; larger gives a smoother map that is easier to learn. "auto" depends on
        the number of features.
    scaling : float, default=0.5
        Ratio of the annealing from a quarter of the data's diameter down to the blur, in (0, 1).
    n_steps : int, default=5
        Number of steps T, of the particle flows and of `transform`.
    step_size : "harmonic", float or array-like of shape (n_steps,), default="harmonic"
        Steps eta_k of the particle flows, in (0, 1]. "harmonic" is 1 / (T - k): equal parts of the
        way, the whole of it at the last step. A float is the paper's constant step.
    n_flows : int, default=32
        Number of minibatch flows in the trajectory pool.
    flow_batch_size : int, default=1024
        Source points and target points in each flow; at most the training rows of the smaller.
        Larger ones make the flow straighter and cost their square.
    pool_size : int or None, default=None
        Flows held at a time; later ones are simulated while the network is trained, and take the place
        of the first. None holds as many as 1 GiB can.
    sinkhorn_tol : float, default=0.002
        L1 error of the marginals at which a Sinkhorn problem counts as solved.
    sinkhorn_max_iter : int, default=1000
        Bound on the iterations of a Sinkhorn problem.
    solver : {"euler", "midpoint", "heun", "rk4"}, default="euler"
        Integrator of the learnt flow.
    network : Module, callable or None, default=None
        Velocity network: a `torch.nn.Module` (copied, its weights are the start), or a callable that
        makes one from the shape of a point, ``(n_features,)`` or (C, H, W) for images, and for
        `labels="condition"` the number of classes. It is called as ``network(t, x)``, with the class indices
        as ``network(t, x, y)``. None is a multi-layer perceptron, and a `sklearn_nsgf.networks.UNet` for
        images.
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
        Widths of the perceptron's layers; not used with a `network`.
    learning_rate : "auto" or float, default="auto"
        Largest rate of Adam's schedule: a short warm-up, then a cosine to zero. "auto" is 0.005 for the
        perceptron and 0.001 for other networks.
    batch_size : int, default=256
        Points in each optimiser step.
    max_iter : int, default=4000
        Number of optimiser steps.
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
        Minibatch flows at a time on the CPU. None means as many as torch has threads unless
        `joblib.parallel_config` asks for more than one. The result is the same for any number.
    random_state : int, RandomState instance or None, default=None
        Seed of the minibatches, the initial network and the training. The same seed gives the
        same bytes on the same machine with the same number of torch threads.
    verbose : int, default=0
        Whether to log a line for each phase to the logger "sklearn_nsgf".

    Attributes
    ----------
    network_ : Module
        The trained velocity network, in standardised units, on the CPU.
    blur_ : float or (float, float)
        Blur in standardised units.
    loss_curve_ : list of float
        Training loss at about 50 evaluations, each the mean since the last one.
    validation_curve_ : list of float
        Validation loss at the same evaluations, without those in the first 15 % of `max_iter`; empty without
        early stopping.
    n_iter_ : int
        Optimiser steps taken.
    n_function_evaluations_ : int
        Evaluations of the velocity network that one `transform` costs.
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
    NSGFPlusPlus : Goes on with a straight flow, where this one has residual errors.
    sklearn_nsgf.flow.particle_flow : The particle flow itself, without a network.
    sklearn_nsgf.metrics.energy_distance : What `score` measures.

    Notes
    -----
    In a `Pipeline` the earlier steps transform `X` and never `y`, so that a scaler there would move the
    source and leave the target: use `standardize` instead.

    Memory: a flow takes ``4 * flow_batch_size * (n_steps + 1) * n_features`` bytes in the pool, half of
    that for images, and while it runs a few matrices of ``4 * flow_batch_size**2`` bytes.

    References
    ----------
    .. [1] Zhu, Wang, Zhang, Zhao, Qian. Neural Sinkhorn Gradient Flow. arXiv:2401.14069, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf import SinkhornFlowTransport
    >>> rng = np.random.default_rng(0)
    >>> X_src = rng.normal(size=(500, 2))
    >>> X_tgt = rng.normal([5, -3], [0.5, 2], size=(400, 2))
    >>> est = SinkhornFlowTransport(n_flows=4, flow_batch_size=256, max_iter=300, random_state=0)
    >>> est = est.fit(X_src, X_tgt)
    >>> moved = est.transform(rng.normal(size=(1000, 2)))
    >>> bool(np.all(np.abs(moved.mean(axis=0) - [5, -3]) < 0.3))
    True
    >>> est.sample(3, random_state=0).shape
    (3, 2)
    """

    _pool_task, _training_task = "Sinkhorn pool", "training"
    _parameter_constraints: dict = {
        **NetworkFlowTransport._parameter_constraints,
        "blur": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), "array-like"],
        "scaling": [Interval(Real, 0, 1, closed="neither")],
        "step_size": [StrOptions({"harmonic"}), Interval(Real, 0, 1, closed="right"), "array-like"],
        "n_flows": [Interval(Integral, 1, None, closed="left")],
        "flow_batch_size": [Interval(Integral, 2, None, closed="left")],
        "pool_size": [None, Interval(Integral, 1, None, closed="left")],
        "sinkhorn_tol": [Interval(Real, 0, None, closed="neither")],
        "sinkhorn_max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        blur="auto",
        scaling=0.5,
        n_steps=5,
        step_size="harmonic",
        n_flows=32,
        flow_batch_size=1024,
        pool_size=None,
        sinkhorn_tol=0.002,
        sinkhorn_max_iter=1000,
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
        self.blur = blur
        self.scaling = scaling
        self.n_steps = n_steps
        self.step_size = step_size
        self.n_flows = n_flows
        self.flow_batch_size = flow_batch_size
        self.pool_size = pool_size
        self.sinkhorn_tol = sinkhorn_tol
        self.sinkhorn_max_iter = sinkhorn_max_iter
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

    def _block_plan(self, strata: list[Stratum]) -> tuple[int, int]:
        n_rows = [sum(getattr(each, side).n_rows for each in strata) for side in ("source", "target")]
        return self.n_flows, int(min(self.flow_batch_size, *n_rows))

    def _make_blocks(self, stratum: Stratum, n_points: int, device: torch.device) -> SinkhornFlows:
        self.blur_ = resolve_blur(self.blur, self._scaling)
        return SinkhornFlows(
            stratum.source,
            stratum.target,
            n_particles=int(min(n_points, stratum.source.n_rows)),
            n_targets=int(min(n_points, stratum.target.n_rows)),
            device=device,
            n_jobs=self.n_jobs,
            blur=self.blur_,
            n_steps=self.n_steps,
            step_size=self.step_size,
            scaling=self.scaling,
            tol=self.sinkhorn_tol,
            max_iter=self.sinkhorn_max_iter,
        )

    def _report(self, makers: list[SinkhornFlows], n_blocks: int) -> None:
        converged = sum(each.n_converged for each in makers) / sum(each.n_problems for each in makers)
        if self.verbose:
            share = 100 * converged
            logger.info("simulated %d Sinkhorn flows, %.0f %% of their steps converged", n_blocks, share)
        if converged < 1:
            warn_caller(
                f"{1 - converged:.1%} of the Sinkhorn problems did not reach "
                f"sinkhorn_tol={self.sinkhorn_tol}; the largest marginal error is "
                f"{max(each.marginal_error for each in makers):.2g}. Raise blur (blur_={self.blur_}), "
                "sinkhorn_max_iter or sinkhorn_tol.",
                ConvergenceWarning,
            )


def resolve_blur(blur, scaling: FlowScaling):
    """Blur in standardised units; `blur` is a fraction of the target's RMS pairwise distance."""
    if isinstance(blur, str):
        fractions = auto_blur(len(scaling.noise_std))
    else:
        blur_schedule(blur, 2)
        fractions = np.asarray(blur, dtype=float)
    resolved = fractions * (scaling.target_rms_distance or 1.0)
    return float(resolved) if np.ndim(resolved) == 0 else tuple(map(float, resolved))


def auto_blur(n_features: int) -> float:
    """Fraction of the target's RMS pairwise distance, as measured on data of 2, 3, 11 and 64 features."""
    return min(0.025 * (n_features / 2) ** 0.4, 0.15)
