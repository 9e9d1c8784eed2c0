"""Flow matching: straight flows between paired minibatches."""

from __future__ import annotations

from typing import Literal

from sklearn_nsgf._base import SingleFlowTransport
from sklearn_nsgf._data.frame import blur_in_units
from sklearn_nsgf._data.space import Space
from sklearn_nsgf._learning.paths import StraightPaths
from sklearn_nsgf._parameters import COUNT, COUPLING, POSITIVE, SHARED
from sklearn_nsgf._types import (
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
)


class FlowMatchingTransport(SingleFlowTransport):
    """Transport between two samples by flow matching.

    Points of source and target minibatches are paired. A network learns the velocity of the straight lines
    between them as a function of position and time. The learnt flow transports new points too. Source and
    target need no pairing and may differ in size.

    Parameters
    ----------
    coupling : {"exact", "independent", "sinkhorn"}, default="exact"
        How to pair the points of two minibatches. "independent" pairs at random [1]_; this is also known as
        I-CFM, and as rectified flow before its first rectification. "exact" solves optimal transport for the
        squared distance, OT-CFM [2]_; its time grows with the cube of `coupling_batch_size`. "sinkhorn" draws
        pairs from the entropic plan and suits larger minibatches.
    coupling_batch_size : int, default=512
        Number of points in each of the two paired minibatches, capped by the rows there are.
    n_couplings : int, default=128
        Number of paired minibatches in a training of `max_iter` steps. They are made as it goes on: one that
        stops early makes fewer. A single one is made if each would take all rows of both samples, and pair
        them in the same way.
    pool_size : int or None, default=None
        Number of paired minibatches held at a time. Further ones replace the oldest. None holds as many as
        fit in 1 GiB.
    blur : float, default=0.03
        For `coupling="sinkhorn"`: the square root of the entropic temperature, as a fraction of the target's
        root mean squared pairwise distance.
    n_steps : int, default=10
        Number of steps of `transform`.
    solver : {"euler", "midpoint", "heun", "rk4"}, default="euler"
        ODE integrator of the learnt flow.
    network : Module, callable or None, default=None
        Velocity network: a `torch.nn.Module`, which is copied and trained from its weights, or a callable
        that makes one from the shape of a point, ``(n_features,)`` or (C, H, W), and, for
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
        Number of optimiser steps, fewer of few rows (`early_stopping`). With 0 the flow is `frame` alone,
        fitted to all rows: a baseline.
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
    network_ : Module
        The trained velocity network, in standardised units, on the CPU.
    blur_ : float
        Blur in standardised units.
    loss_curve_ : list of float
        Training loss at about 50 evaluations, each averaged since the last one.
    validation_curve_ : list of float
        Energy distance of held-out rows, with exponent 1/2 and in standardised units, from before the first
        step on; of few rows without and with the networks of the folds. Empty without early stopping.
    n_iter_ : int
        Number of optimiser steps taken; of few rows, by the network that is kept, or else by that of a fold.
    n_function_evaluations_ : int
        Number of velocity network evaluations in one `transform`.
    from_noise_ : bool
        Whether the source is the normal distribution, as after `fit(X)`.
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

    _parameter_constraints: dict = {
        **SHARED,
        **COUPLING,
        "n_steps": [COUNT],
        "blur": [POSITIVE],
    }

    def __init__(
        self,
        *,
        coupling: Coupling = "exact",
        coupling_batch_size: int = 512,
        n_couplings: int = 128,
        pool_size: int | None = None,
        blur: float = 0.03,
        n_steps: int = 10,
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

    def _paths(self, space: Space) -> StraightPaths:
        return StraightPaths(
            n_blocks=self.n_couplings,
            batch_size=self.coupling_batch_size,
            coupling=self.coupling,
            blur=blur_in_units(self.blur, space.frame),
            n_jobs=self.n_jobs,
        )
