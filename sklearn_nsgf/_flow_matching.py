"""Flow matching: straight flows between paired minibatches."""

from __future__ import annotations

from numbers import Integral, Real

import torch

from sklearn_nsgf._base import NetworkFlowTransport
from sklearn_nsgf._sinkhorn_flow import resolve_blur
from sklearn_nsgf._sklearn import Interval, StrOptions
from sklearn_nsgf._strata import Stratum
from sklearn_nsgf.flow import Couplings
from sklearn_nsgf.flow._coupling import COUPLINGS


class FlowMatchingTransport(NetworkFlowTransport):
    """Transport between two samples by flow matching.

    Points of source and target minibatches are paired, and a network learns the velocity of the
    straight lines between the pairs as a function of place and time. The learnt flow transports any
    point, also new ones; source and target need no pairing and may differ in size.

    Parameters
    ----------
    coupling : {"exact", "independent", "sinkhorn"}, default="exact"
        How the points of two minibatches are paired. "independent" is at random [1]_, also known as
        I-CFM and as rectified flow before its first rectification. "exact" is by optimal transport
        for the squared distance, OT-CFM [2]_; time grows as the cube of `coupling_batch_size`.
        "sinkhorn" draws from the entropic plan, which serves larger minibatches.
    coupling_batch_size : int, default=512
        Points in each of the two minibatches; at most the rows there are.
    n_couplings : int, default=512
        Number of paired minibatches in the whole of the training.
    pool_size : int or None, default=None
        Paired minibatches held at a time; later ones are made while the network is trained, and take
        the place of the first. None holds as many as 1 GiB can.
    blur : "auto", float, default="auto"
        For the coupling "sinkhorn": the square root of the entropic temperature, as a fraction of the
        target's root mean squared pairwise distance.
    n_steps : int, default=10
        Number of steps of `transform`.
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
        Minibatches at a time on the CPU. None means as many as torch has threads unless
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
    NSGFPlusPlus : A straight flow after a short Sinkhorn flow.
    sklearn_nsgf.flow.couple : The couplings.

    References
    ----------
    .. [1] Lipman, Chen, Ben-Hamu, Nickel, Le. Flow Matching for Generative Modeling. ICLR 2023.
    .. [2] Tong et al. Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
       Transport. TMLR, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf import FlowMatchingTransport
    >>> rng = np.random.default_rng(0)
    >>> X_src = rng.normal(size=(500, 2))
    >>> X_tgt = rng.normal([5, -3], [0.5, 2], size=(400, 2))
    >>> est = FlowMatchingTransport(n_couplings=8, max_iter=300, random_state=0).fit(X_src, X_tgt)
    >>> moved = est.transform(rng.normal(size=(1000, 2)))
    >>> bool(np.all(np.abs(moved.mean(axis=0) - [5, -3]) < 0.3))
    True
    """

    _training_task = "straight flow"
    _parameter_constraints: dict = {
        **NetworkFlowTransport._parameter_constraints,
        "coupling": [StrOptions(set(COUPLINGS))],
        "coupling_batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_couplings": [Interval(Integral, 1, None, closed="left")],
        "pool_size": [None, Interval(Integral, 1, None, closed="left")],
        "blur": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        coupling="exact",
        coupling_batch_size=512,
        n_couplings=512,
        pool_size=None,
        blur="auto",
        n_steps=10,
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
        self.coupling = coupling
        self.coupling_batch_size = coupling_batch_size
        self.n_couplings = n_couplings
        self.pool_size = pool_size
        self.blur = blur
        self.n_steps = n_steps
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
        if len(strata) == 1:
            return self.n_couplings, self.coupling_batch_size
        # Larger minibatches would have other shares of the classes.
        n_rows = sum(each.source.n_rows for each in strata)
        return self.n_couplings, int(min(self.coupling_batch_size, n_rows))

    def _make_blocks(self, stratum: Stratum, n_points: int, device: torch.device) -> Couplings:
        return Couplings(
            stratum.source,
            stratum.target,
            coupling=self.coupling,
            n_points=n_points,
            device=device,
            n_jobs=self.n_jobs,
            blur=resolve_blur(self.blur, self._scaling),
        )
