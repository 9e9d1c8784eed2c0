"""What every flow estimator shares: the whole scikit-learn surface, written once."""

from __future__ import annotations

import copy
import logging
import math
import sys
from abc import ABCMeta, abstractmethod
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted, check_scalar
from torch import nn

from sklearn_nsgf._sklearn import (
    CallbackSupportMixin,
    Interval,
    StrOptions,
    fit_context,
    output_container,
    with_callbacks,
)
from sklearn_nsgf._strata import Stratum, allot, make_strata, split_places
from sklearn_nsgf._tasks import FitTasks
from sklearn_nsgf._torch import inference_dtype, isolated_rng, make_generator, resolve_device
from sklearn_nsgf._training import TrainingResult, evaluation_interval, train_network
from sklearn_nsgf._validation import (
    FlowData,
    FlowScaling,
    as_rows,
    check_flow_data,
    check_labels_of,
    check_samples,
    check_target,
    check_times,
    float_dtype,
    is_target,
    to_dtype,
    warn_caller,
)
from sklearn_nsgf._version import __version__
from sklearn_nsgf.domains import check_sample_domain
from sklearn_nsgf.flow import PathPool, StackedBlocks, TrajectoryPool, odeint
from sklearn_nsgf.flow._ode import N_EVALUATIONS, SOLVERS
from sklearn_nsgf.flow._pool import BlockMaker, most_held, reporting_points
from sklearn_nsgf.metrics import make_transport_scorer
from sklearn_nsgf.networks import ImageRows, make_network

logger = logging.getLogger("sklearn_nsgf")

# Learning rates of the perceptron and of other networks.
PERCEPTRON_RATE, RATE = 0.005, 0.001
MAX_SEED = np.iinfo(np.int32).max
# Rows that go through a network at a time: at most so many, and at most so many numbers.
CHUNK_ROWS, CHUNK_SIZE = 16_384, 2**18
VALIDATION_POINTS, VALIDATION_IMAGES = 2048, 512
# Fewer rows than this can be learnt by heart in the default number of iterations.
AUTO_STOPPING_ROWS = 5000
# Source rows kept for `sample`, and at least so many of each class that the network sees; more would only
# make files bigger.
MAX_SOURCE_ROWS, MIN_CLASS_ROWS = 10_000, 100
# Rows of each sample that callbacks are given.
CALLBACK_ROWS = 1024
# Blur of the plan that tells the classes of unlabelled rows, as a fraction of the target's RMS distance:
# measured on Office-Caltech10, where less tells them hardly better than no plan.
CLASS_BLUR = 0.3
DOC_LINK = "https://sklearn-nsgf.readthedocs.io/en/latest/generated/{estimator_module}.{estimator_name}.html"


class FitJob(NamedTuple):
    """What a fit has to do, once its arguments are checked.

    Attributes
    ----------
    training : list of Stratum
    held_out : list of Stratum
        Empty without early stopping.
    device : torch device
    rng : RandomState
    tasks : FitTasks
    replay : bool
        Whether older paths are learnt again, and these ones kept for later, as `partial_fit` does.
    """

    training: list[Stratum]
    held_out: list[Stratum]
    device: torch.device
    rng: np.random.RandomState
    tasks: FitTasks
    replay: bool


class BaseFlowTransport(
    CallbackSupportMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator, metaclass=ABCMeta
):
    """Base of the estimators.

    Subclasses set the parameters in `__init__` and implement the abstract methods.
    """

    _doc_link_module = "sklearn_nsgf"
    _doc_link_template = DOC_LINK
    # Passed on by meta-estimators without being asked for.
    __metadata_request__fit = {"sample_domain": True}
    __metadata_request__partial_fit = {"sample_domain": True}
    __metadata_request__transform = {"sample_domain": True, "labels": True}
    __metadata_request__inverse_transform = {"labels": True}
    __metadata_request__score = {"sample_domain": True}

    _parameter_constraints: dict = {
        "solver": [StrOptions(set(SOLVERS))],
        "network": [None, nn.Module, callable],
        "hidden_layer_sizes": ["array-like"],
        "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "labels": [StrOptions({"ignore", "condition", "couple"})],
        "standardize": ["boolean"],
        "image_shape": [None, "array-like"],
        "channel_axis": [None, Integral],
        "warm_start": ["boolean"],
        "compile": ["boolean"],
        "device": [str],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    @abstractmethod
    def _learn(self, job: FitJob) -> bool:
        """Fit in the units of the flow; return whether Ctrl-C ended it early."""

    @abstractmethod
    def _follow(
        self, Z, codes, t_start, t_end, n_steps, solver, return_path
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nodes of the flow from `Z` on, or the last one alone, and their times, in units of the flow."""

    @abstractmethod
    def _velocity(self, X, codes, t) -> np.ndarray:
        """`velocity` of checked rows, class indices (or None) and times."""

    @property
    @abstractmethod
    def _n_phases(self) -> int:
        """Number of tasks that a fit consists of."""

    @property
    @abstractmethod
    def n_function_evaluations_(self) -> int:
        """Evaluations of a velocity network that one `transform` costs."""

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sample_domain=None):
        """Learn the flow from a source sample to a target sample.

        Parameters
        ----------
        X : array-like of shape (n_source, n_features) or images
            Source sample; the target sample if `y` does not hold one; both with `sample_domain`. Images have
            the shape (n, H, W), (n, H, W, C) or (n, C, H, W). A `numpy.memmap` of float32 or float64, or
            uint8 for images, is read in parts and never copied as a whole.
        y : array-like of shape (n_target, n_features) or (n_samples,), default=None
            Target sample, with any number of rows and no pairing with those of `X`. Without it, and
            without `sample_domain`, `X` is the target and the source is a normal distribution with the
            mean and the scale of `X`. A one-dimensional `y` has a class for each row of `X` and is ignored
            with `labels="ignore"`.
        sample_domain : array-like of shape (n_samples,), default=None
            Rows of `X` with a number >= 0 are the source and those with one < 0 the target, see
            `sklearn_nsgf.domains.stack_domains`.

        Returns
        -------
        self : object
            The fitted estimator. Ctrl-C (KeyboardInterrupt) in the training ends it early with a warning and
            leaves what was learnt; with `warm_start` the next `fit` goes on from there. Before the first
            step of a training there is nothing to leave, and KeyboardInterrupt is raised.
        """
        continues = self.warm_start and self.__sklearn_is_fitted__()
        return self._fit(X, y, sample_domain, continues=continues, replay=False)

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, *, sample_domain=None):
        """Learn from another part of the data, and go on with what was learnt.

        The first call works like `fit` and settles the units of the flow, and the classes. Each later one
        makes new paths between the rows that it is given, adds them to those of the calls before, and trains
        on all of them for another `max_iter` steps at a constant rate. As many paths are kept as
        `pool_size` says, or 1 GiB can hold; the oldest ones go first. Files and deep copies of the estimator
        do not have them, and begin with those of the next call.

        Parameters
        ----------
        X : array-like of shape (n_source, n_features) or images
            As in `fit`.
        y : array-like of shape (n_target, n_features) or (n_samples,), default=None
            As in `fit`. There has to be a target sample in each call, or in none.
        sample_domain : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        continues = self.__sklearn_is_fitted__()
        return self._fit(X, y, sample_domain, continues=continues, replay=True)

    def _fit(self, X, y, sample_domain, *, continues: bool, replay: bool):
        context = self._init_callback_context(max_subtasks=self._n_phases)
        if not continues:
            # A fit that fails must not leave the old network with new units or classes.
            for name in ("device_", "_n_seen", "_source_rows", "_replay"):
                vars(self).pop(name, None)
            return self._fit_checked(context, X, y, sample_domain, continues, replay)
        before = dict(vars(self))
        try:
            return self._fit_checked(context, X, y, sample_domain, continues, replay)
        except BaseException:
            vars(self).update(before)
            raise

    def _fit_checked(self, context, X, y, sample_domain, continues: bool, replay: bool):
        if not continues:
            self._label_mode = self.labels
        elif self.labels != self._label_mode:
            raise ValueError(
                f"labels={self.labels!r} was {self._label_mode!r} in the first fit, and this one goes on "
                "from there. Set it back, or fit afresh."
            )
        data = check_flow_data(self, X, y, sample_domain, reset=not continues)
        device = resolve_device(self.device)
        rng = check_random_state(self.random_state)
        if continues:
            if (data.source is None) != (self._source_rows is None):
                raise ValueError("The fits before and this one must both have a source, or none.")
            # A continued fit sees new minibatches, also with a fixed seed.
            rng = check_random_state((rng.randint(MAX_SEED) + self.n_iter_) % MAX_SEED)
        else:
            per_feature = self.standardize and self._layout.picture_shape is None
            self._scaling = FlowScaling(data.source, data.target, per_feature=per_feature)
            # As names, which skops knows.
            self._dtypes = tuple(dtype.name for dtype in data.dtypes)
        self._keep_source(data, rng.randint(MAX_SEED))
        if data.source is not None and self._scaling.source_collapsed:
            warn_caller(
                "All rows of the source are one point. The flow moves them all alike and cannot spread "
                "them over the target.",
                UserWarning,
            )
        sample = _TaskData(self, data)
        tasks = FitTasks(self, context, sample.as_arguments())
        context.call_on_fit_task_begin(estimator=self, **tasks.data)
        training, held_out = self._split(data, rng.randint(MAX_SEED))
        interrupted = self._learn(FitJob(training, held_out, device, rng, tasks, replay))
        if interrupted:
            warn_caller(
                f"fit was interrupted after {self.n_iter_} iterations and keeps what was learnt so far. "
                "The next partial_fit, or fit with warm_start=True, goes on from there.",
                UserWarning,
            )
        self.device_ = str(device)
        context.call_on_fit_task_end(estimator=self, reconstruction_attributes=dict, **tasks.data)
        return self

    def _split(self, data: FlowData, seed: int) -> tuple[list[Stratum], list[Stratum]]:
        """The flows to train on and those to hold out."""
        early_stopping = self.early_stopping
        if early_stopping == "auto":
            has_rows = data.source is not None
            early_stopping = has_rows and min(len(data.source), len(data.target)) < AUTO_STOPPING_ROWS
        samples = [(data.source, data.source_codes), (data.target, data.target_codes)]
        options = {
            "n_classes": 0 if self.labels == "ignore" else len(self.classes_),
            "seen": self.labels == "condition",
            "blur": CLASS_BLUR * (self._scaling.target_rms_distance or 1.0),
        }
        if not early_stopping:
            return make_strata(data, self._scaling, [None, None], **options), []
        splits = [
            (None, None) if rows is None else split_places(len(rows), codes, self.validation_fraction, seed)
            for rows, codes in samples
        ]
        training, held_out = zip(*splits, strict=True)
        return tuple(make_strata(data, self._scaling, places, **options) for places in (training, held_out))

    def _keep_source(self, data: FlowData, seed: int) -> None:
        """Keep rows for `sample`, by the class that the network sees; of all there were, each as likely."""
        rng = np.random.RandomState(seed)
        source = data.source
        codes = data.target_codes if source is None else data.source_codes
        n_rows = len(data.target if source is None else source)
        groups = [np.arange(n_rows)]
        if self.labels == "condition":
            groups = [np.flatnonzero(codes == code) for code in range(len(self.classes_))]
        n_before = getattr(self, "_n_seen", [0] * len(groups))
        self._n_seen = [n + len(group) for n, group in zip(n_before, groups, strict=True)]
        if source is None:
            self._source_rows = None
            return
        kept = []
        for k, group in enumerate(groups):
            n_most = max(MIN_CLASS_ROWS, round(MAX_SOURCE_ROWS * self._n_seen[k] / sum(self._n_seen)))
            parts = []
            if n_before[k]:
                n_old = round(n_most * n_before[k] / self._n_seen[k])
                parts.append(rng.permutation(self._source_rows[k])[:n_old])
                n_most -= len(parts[0])
            if len(group):
                parts.append(source[np.sort(rng.permutation(group)[:n_most])])
            kept.append(np.concatenate(parts))
        self._source_rows = kept

    def _rate(self) -> float:
        if self.learning_rate != "auto":
            return self.learning_rate
        return PERCEPTRON_RATE if self.network is None and self._layout.image_shape is None else RATE

    def fit_transform(self, X, y=None, *, sample_domain=None):
        """Fit, and transport the source rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            As in `fit`.
        y : array-like of shape (n_target, n_features) or (n_samples,), default=None
            As in `fit`.
        sample_domain : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        X_transported : ndarray of the shape of `X`
            With `sample_domain` the target rows are as they were. After `fit(X)` without a target the
            rows of `X` are read as noise, see `transform`.
        """
        self.fit(X, y, sample_domain=sample_domain)
        labels = y if self.labels == "condition" else None
        return self.transform(X, labels=labels, sample_domain=sample_domain)

    def transform(self, X, *, labels=None, sample_domain=None):
        """Transport points of the source to the target.

        After `fit(X)` without a target the source is noise: points of the normal distribution that
        has the mean and the scale of the data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            New points or those of the fit, any number of them.
        labels : label or array-like of shape (n_samples,), default=None
            Class of each point, or one for all; for `labels="condition"`, and not otherwise.
        sample_domain : array-like of shape (n_samples,), default=None
            Rows with a number < 0 are of the target and come back as they are. Without it all rows are of
            the source.

        Returns
        -------
        X_transported : ndarray of the shape of `X`
            float32 if `X` is, else float64. Images of type uint8 are answered in uint8 if the target's are,
            else in float32.
        """
        check_is_fitted(self)
        self._check_container()
        X = check_samples(self, X)
        if sample_domain is None:
            return self._transport(X, self._codes(labels, len(X), "rows of X"), 0.0, 1.0)
        is_source = check_sample_domain(sample_domain, len(X))
        answer = X.astype(self._answer_dtype(X.dtype, 1.0))
        if is_source.any():
            codes = self._codes(labels, len(X), "rows of X", is_source)
            answer[is_source] = self._transport(X[is_source], codes, 0.0, 1.0)
        return answer

    def inverse_transform(self, X, *, labels=None):
        """Transport points of the target back to the source.

        The flow is integrated backwards with the same number of steps; the round trip is exact only
        in the limit of many steps.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Points of the target.
        labels : label or array-like of shape (n_samples,), default=None
            As in `transform`.

        Returns
        -------
        X_original : ndarray of the shape of `X`
            With the type that `transform` has, and the source in the place of the target.
        """
        return self.integrate(X, t_start=1.0, t_end=0.0, labels=labels)

    def integrate(
        self, X, *, t_start=0.0, t_end=1.0, n_steps=None, solver=None, return_path=False, labels=None
    ):
        """Follow the flow from one time to another; 0 is the source and 1 the target.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Points at time `t_start`.
        t_start, t_end : float, default=0 and 1
            Times between 0 and 1. With `t_end < t_start` the flow runs backwards.
        n_steps : int, default=None
            Number of steps; by default the estimator's own.
        solver : {"euler", "midpoint", "heun", "rk4"}, default=None
            By default the estimator's `solver`.
        return_path : bool, default=False
            Whether to return the points after every step, the first ones included.
        labels : label or array-like of shape (n_samples,), default=None
            As in `transform`.

        Returns
        -------
        X_t : ndarray of the shape of `X`, or of shape (n_steps + 1, \\*X.shape)
        """
        check_is_fitted(self)
        X = check_samples(self, X)
        for name, t in {"t_start": t_start, "t_end": t_end}.items():
            check_times(t, name)
        codes = self._codes(labels, len(X), "rows of X")
        return self._transport(X, codes, t_start, t_end, n_steps, solver, return_path)

    def velocity(self, X, t, *, labels=None):
        """Velocity dx/dt of the flow.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Points.
        t : float or array-like of shape (n_samples,)
            Times between 0 (source) and 1 (target).
        labels : label or array-like of shape (n_samples,), default=None
            As in `transform`.

        Returns
        -------
        V : ndarray of the shape of `X`
            In units of the data: what a particle moves in the whole time from 0 to 1 at this speed.
        """
        check_is_fitted(self)
        X = as_rows(self, check_samples(self, X))
        codes = self._codes(labels, len(X), "rows of X")
        V = self._velocity(X, codes, check_times(t, "t", len(X)))
        return self._layout.to_samples(_finite(V.astype(X.dtype, copy=False)))

    def sample(self, n_samples=1, *, labels=None, random_state=None):
        """Draw new points that follow the target's distribution.

        The source is drawn, from the normal distribution or from the rows of the source sample
        (with replacement, from at most 10 000 of them), and transported.

        Parameters
        ----------
        n_samples : int, default=1
            Number of points.
        labels : label or array-like of shape (n_samples,), default=None
            Class of each point, or one for all; for `labels="condition"`, and not otherwise. By default
            classes are drawn as often as they were in the fit.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), or images
            With the shape and the dtype of the fit.
        """
        check_is_fitted(self)
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        rng = check_random_state(random_state)
        if labels is None and self._label_mode == "condition":
            shares = np.array(self._n_seen) / sum(self._n_seen)
            codes = rng.choice(len(shares), size=n_samples, p=shares)
        else:
            codes = self._codes(labels, n_samples, "points (n_samples)")
        Z = self._draw_source(n_samples, codes, rng)
        path = self._follow(Z, codes, 0.0, 1.0, None, None, False)
        return self._to_samples(*path, self._dtypes[1])[-1]

    def _draw_source(self, n_samples: int, codes: np.ndarray | None, rng) -> np.ndarray:
        """Rows of the source in the units of the flow, of the given classes if there are any."""
        dtype = float_dtype(self._dtypes[1])
        if self._source_rows is None:
            noise = rng.standard_normal((n_samples, len(self._scaling.noise_std)))
            return (noise * self._scaling.noise_std).astype(dtype)
        codes = np.zeros(n_samples, dtype=int) if codes is None else codes
        drawn = np.empty((n_samples, self._source_rows[0].shape[1]), dtype=dtype)
        for code in np.unique(codes):
            members, wanted = self._source_rows[code], codes == code
            drawn[wanted] = members[rng.randint(len(members), size=wanted.sum())]
        return self._scaling.encode(drawn, 0.0)

    def score(self, X, y=None, *, sample_domain=None, sample_weight=None):
        """Minus the energy distance between transported points and a target sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Source points; the target sample if `y` does not hold one, which is then compared with
            generated points; both with `sample_domain`.
        y : array-like of shape (n_target, n_features) or (n_samples,), default=None
            Target sample. One-dimensional labels are used for `labels="condition"` and `sample_domain`, to
            transport each point in its class.
        sample_domain : array-like of shape (n_samples,), default=None
            Numbers >= 0 for the source rows of `X` and < 0 for its target rows.
        sample_weight : None
            Rows have no weights; here for scikit-learn's meta-estimators, which ask for it.

        Returns
        -------
        score : float
            The higher the better; at most about zero. In units of the data, see
            `sklearn_nsgf.metrics.energy_distance`.
        """
        check_is_fitted(self)
        if sample_weight is not None:
            raise ValueError("sample_weight must be None: the flow knows no weights.")
        checked = check_samples(self, X, ensure_min_samples=2)
        if is_target(y):
            y = check_target(self, y, ensure_min_samples=2)
        # A frame stays one, or `transform` would miss its names.
        X = X if hasattr(X, "columns") else checked
        return make_transport_scorer("energy_distance")(self, X, y, sample_domain=sample_domain)

    def _codes(self, labels, n_rows: int, argument: str, chosen=slice(None)) -> np.ndarray | None:
        """Class index of the chosen ones of `n_rows` points; None where the network sees no class."""
        if self._label_mode != "condition":
            if labels is not None:
                raise ValueError(
                    f"labels were given, and this estimator was fitted with labels={self._label_mode!r}: its "
                    "network sees no class. Fit with labels='condition'."
                )
            return None
        if labels is None:
            raise ValueError(
                f"labels are missing: with labels='condition' each of the {n_rows} {argument} needs its "
                f"class, one of {self.classes_.tolist()}."
            )
        return check_labels_of(self, labels, n_rows, argument, chosen)

    def _check_container(self) -> None:
        if self._layout.picture_shape is not None and output_container(self) != "default":
            raise ValueError(
                f"set_output(transform={output_container(self)!r}) is for rows, and these samples have the "
                f"shape {self._layout.sample_shape}: images come as arrays. Use "
                "set_output(transform='default')."
            )

    def _transport(self, X, codes, t_start, t_end, n_steps=None, solver=None, return_path=False):
        """`integrate` of checked samples, class indices and times."""
        Z = self._scaling.encode(as_rows(self, X), self._clock(t_start))
        dtype = float_dtype(X.dtype) if return_path else self._answer_dtype(X.dtype, t_end)
        nodes = self._follow(Z, codes, t_start, t_end, n_steps, solver, return_path)
        path = self._to_samples(*nodes, dtype)
        return path if return_path else path[-1]

    def _answer_dtype(self, dtype: np.dtype, t: float) -> np.dtype:
        """Grey values are rounded where there are images, and nowhere else."""
        has_images = t in (0, 1) and self._dtypes[int(t)] == "uint8"
        return dtype if has_images else float_dtype(dtype)

    def _clock(self, t):
        """Time of the moving centre at a time of the flow."""
        return t

    def _to_samples(self, Z: np.ndarray, times: np.ndarray, dtype: np.dtype) -> np.ndarray:
        rows = _finite(self._scaling.decode(Z, self._clock(times)[:, None], float_dtype(dtype)))
        return self._layout.to_samples(to_dtype(rows, dtype))

    def __sklearn_is_fitted__(self):
        return hasattr(self, "device_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.target_tags.required = self.labels != "ignore"
        tags.target_tags.one_d_labels = self.labels != "ignore"
        return tags

    def __copy__(self):
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __getstate__(self):
        return {**super().__getstate__(), "_sklearn_nsgf_version": __version__}

    def __setstate__(self, state):
        version = state.pop("_sklearn_nsgf_version", "an unknown version")
        if version != __version__:
            warn_caller(
                f"An estimator was saved with sklearn-nsgf {version} and is opened with {__version__}: it "
                "may not work as it did. Fit it again, or install that version.",
                UserWarning,
            )
        super().__setstate__(state)


class NetworkFlowTransport(BaseFlowTransport):
    """Base of the flows of one velocity network, trained on paths that subclasses make.

    Subclasses set the parameters in `__init__` and implement `_make_blocks` and `_block_plan`.
    """

    _parameter_constraints: dict = {
        **BaseFlowTransport._parameter_constraints,
        "n_steps": [Interval(Integral, 1, None, closed="left")],
    }
    # Tasks of a fit: the pool, unless it is part of the training, and the training.
    _pool_task: str | None = None
    _training_task: str

    @abstractmethod
    def _make_blocks(self, stratum: Stratum, n_points: int, device: torch.device) -> BlockMaker:
        """Make paths from so many source points of a class."""

    @abstractmethod
    def _block_plan(self, strata: list[Stratum]) -> tuple[int, int]:
        """Number of blocks in all, and of points in each."""

    def _report(self, makers: list[BlockMaker], n_blocks: int) -> None:
        """Say what there is to say about the paths of a training that is over."""

    @property
    def _n_phases(self) -> int:
        return 1 + (self._pool_task is not None)

    def _make_pool(
        self, strata: list[Stratum], job: FitJob, seed: int, *, n_points: int | None = None
    ) -> TrajectoryPool:
        """Make paths to draw from; `n_points` paths are enough if it is given, and callbacks not told."""
        n_blocks, n_block_points = self._block_plan(strata)
        allotted = allot(n_block_points, strata)
        makers = [
            self._make_blocks(stratum, n, job.device) for stratum, n in zip(strata, allotted, strict=True)
        ]
        n_paths = [maker.n_paths for maker in makers]
        if n_points is not None:
            n_blocks = min(n_blocks, math.ceil(n_points / sum(n_paths)))
        labels = None
        if strata[0].label is not None:
            labels = torch.repeat_interleave(
                torch.tensor([stratum.label for stratum in strata]), torch.tensor(n_paths)
            ).to(job.device)
        n_held = self.pool_size if n_points is None else n_blocks
        options = {
            "n_blocks": n_blocks,
            "seed": seed,
            "n_held": n_held,
            "n_draws": self.max_iter,
            # Half the memory, and finer than the pixels' grey values.
            "dtype": torch.float32 if self._layout.image_shape is None else torch.float16,
            "labels": labels,
        }
        if self._pool_task is None or n_points is not None:
            return TrajectoryPool(StackedBlocks(makers), **options)
        n_reports = len(reporting_points(min(n_blocks, n_held or n_blocks)))
        with job.tasks.phase(self._pool_task, "flows", n_reports) as end_step:
            report = (lambda n_made: end_step()) if job.tasks.heard else None
            return TrajectoryPool(StackedBlocks(makers), report=report, **options)

    def _learn(self, job: FitJob) -> bool:
        pool_seed, validation_seed, network_seed = job.rng.randint(MAX_SEED, size=3).tolist()
        continues = self.__sklearn_is_fitted__()
        new_pool = pool = self._make_pool(job.training, job, pool_seed)
        if job.replay:
            pool = self._replay_with(new_pool)
        generator = make_generator(pool_seed, job.device)
        validation = None
        if job.held_out:
            n_points = VALIDATION_POINTS if self._layout.image_shape is None else VALIDATION_IMAGES
            held_pool = self._make_pool(job.held_out, job, validation_seed, n_points=n_points)
            validation = held_pool.sample(n_points, make_generator(validation_seed, job.device))
        architecture = {
            "event_shape": self._layout.image_shape or self._layout.sample_shape,
            "network": self.network,
            "hidden_layer_sizes": tuple(self.hidden_layer_sizes),
            "n_classes": len(self.classes_) if self.labels == "condition" else 0,
        }
        if not continues:
            self._architecture = architecture
        # Whatever the caller has switched off: training needs gradients.
        with torch.inference_mode(mode=False), torch.enable_grad(), isolated_rng(network_seed):
            network = self.network_ if continues else self.network
            network = make_network(**{**architecture, "network": network}, seed=network_seed)
            n_steps = math.ceil(self.max_iter / evaluation_interval(self.max_iter))
            with job.tasks.phase(self._training_task, "evaluation", n_steps) as end_step:
                result = train_network(
                    self._on_rows(network).to(job.device),
                    lambda n_samples: pool.sample(n_samples, generator),
                    max_iter=self.max_iter,
                    batch_size=self.batch_size,
                    learning_rate=self._rate(),
                    constant_rate=continues,
                    compile=self.compile,
                    validation=validation,
                    n_iter_no_change=self.n_iter_no_change,
                    report=lambda average, last: end_step(
                        lambda: self._attributes_with(average, job.device), last=last
                    ),
                )
        self._report(new_pool.make_blocks.makers, new_pool.n_made)
        if self.verbose:
            name = type(self).__name__
            logger.info("%s trained %d iterations, loss %.3g", name, result.n_iter, result.loss_curve[-1])
        self._keep(result, continues)
        return result.interrupted

    def _attributes_with(self, average: nn.Module, device: torch.device) -> dict[str, Any]:
        """Fitted attributes as if the training ended here."""
        return {"network_": _bare(copy.deepcopy(average).cpu().eval()), "device_": str(device)}

    def _replay_with(self, pool: TrajectoryPool) -> PathPool:
        """The new paths and those of earlier calls; keeps as many of them as a pool may hold."""
        n_held = self.pool_size or most_held(pool.blocks[0])
        n_paths = max(len(pool), n_held * pool.blocks.shape[1])
        older = getattr(self, "_replay", None)
        if older is not None and older.paths.shape[1] != pool.paths.shape[1]:
            warn_caller(
                "The paths of earlier calls have another number of steps and are left out.", UserWarning
            )
            older = None
        self._replay = (
            PathPool(pool.paths, pool.labels) if older is None else pool.followed_by(older, n_paths)
        )
        return self._replay

    def _keep(self, result: TrainingResult, continues: bool) -> None:
        self.network_ = _bare(result.network.cpu())
        if not continues:
            self.loss_curve_, self.validation_curve_, self.n_iter_ = [], [], 0
            self._loss_steps, self._validation_steps = [], []
        self.loss_curve_ = self.loss_curve_ + result.loss_curve
        self.validation_curve_ = self.validation_curve_ + result.validation_curve
        self._loss_steps = self._loss_steps + [self.n_iter_ + step for step in result.loss_steps]
        steps = [self.n_iter_ + step for step in result.validation_steps]
        self._validation_steps = self._validation_steps + steps
        self.n_iter_ += result.n_iter

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_replay", None)
        if "network_" in state:
            state["network_"] = to_arrays(state["network_"])
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if "network_" in vars(self):
            self.network_ = from_arrays(make_network(**self._architecture), self.network_)

    def _on_rows(self, network: nn.Module) -> nn.Module:
        image_shape = self._layout.image_shape
        return network if image_shape is None else ImageRows(network, image_shape)

    @property
    def n_function_evaluations_(self) -> int:
        """Evaluations of the velocity network that one `transform` costs."""
        check_is_fitted(self)
        return self.n_steps * N_EVALUATIONS[self.solver]

    def _follow(self, Z, codes, t_start, t_end, n_steps, solver, return_path):
        n_steps = self.n_steps if n_steps is None else n_steps
        check_scalar(n_steps, "n_steps", Integral, min_val=1)
        solver = self.solver if solver is None else solver

        def flow_chunk(network: nn.Module, Z: torch.Tensor, t_start, t_end, *classes) -> torch.Tensor:
            answer = odeint(
                lambda t, x: network(t, x, *classes),
                Z,
                n_steps=n_steps,
                t_start=t_start,
                t_end=t_end,
                solver=solver,
                return_path=return_path,
            )
            return answer if return_path else answer.unsqueeze(0)

        starts, ends = (np.broadcast_to(np.asarray(t, dtype=Z.dtype), len(Z)) for t in (t_start, t_end))
        times = np.linspace(t_start, t_end, n_steps + 1) if return_path else np.array([t_end])
        network = self._on_rows(self.network_)
        classes = [] if codes is None else [codes]
        return in_chunks(flow_chunk, network, self.device, Z, starts, ends, *classes, axis=1), times

    def _velocity(self, X, codes, t):
        Z = self._scaling.encode(X, t)
        arrays = [Z, t.astype(X.dtype)] + ([] if codes is None else [codes])
        network = self._on_rows(self.network_)
        V = in_chunks(lambda network, Z, t, *classes: network(t, Z, *classes), network, self.device, *arrays)
        return V * self._scaling.spread + self._scaling.drift


@torch.no_grad()
def in_chunks(answer, network: nn.Module, device: str, *arrays: np.ndarray, axis: int = 0) -> np.ndarray:
    """Apply `answer(network, *rows)` to chunks of the arrays' rows, in the precision of the first."""
    device = resolve_device(device)
    dtype = inference_dtype(arrays[0].dtype, device)
    network = copy.deepcopy(network).to(device, dtype).eval()
    n_features = arrays[0][0].size
    n_rows = min(CHUNK_ROWS, max(1, CHUNK_SIZE // n_features))

    def to_tensor(array: np.ndarray) -> torch.Tensor:
        # Class indices stay whole numbers.
        return torch.tensor(array).to(device, dtype if array.dtype.kind == "f" else torch.long)

    answers = [
        answer(network, *(to_tensor(array[chunk]) for array in arrays)).cpu().numpy()
        for chunk in gen_batches(len(arrays[0]), n_rows)
    ]
    return np.concatenate(answers, axis=axis)


def to_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """The parameters of a network, free of torch."""
    return {name: tensor.numpy(force=True) for name, tensor in network.state_dict().items()}


def from_arrays(network: nn.Module, arrays: dict[str, np.ndarray]) -> nn.Module:
    """The network with those parameters."""
    network.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return network.eval()


def _bare(network: nn.Module) -> nn.Module:
    return network.network if isinstance(network, ImageRows) else network


def _framed(X: np.ndarray, names: np.ndarray | None):
    """With the names of the features, where there are any and pandas is there."""
    pandas = sys.modules.get("pandas")
    return X if names is None or pandas is None else pandas.DataFrame(X, columns=names)


class _TaskData:
    """A source sample and a target sample for callbacks, made when one of them asks."""

    def __init__(self, estimator: BaseFlowTransport, data: FlowData) -> None:
        self.estimator, self.data = estimator, data

    def as_arguments(self) -> dict[str, Any]:
        return {name: partial(self._get, name) for name in ("X", "y", "metadata")}

    def _get(self, name: str) -> Any:
        if not hasattr(self, "arguments"):
            self.arguments = self._make()
        return self.arguments[name]

    def _make(self) -> dict[str, Any]:
        est, data = self.estimator, self.data
        rng = np.random.RandomState(0)
        places = [
            np.sort(rng.permutation(len(rows))[:CALLBACK_ROWS])
            for rows in (data.target if data.source is None else data.source, data.target)
        ]
        target = data.target[places[1]]
        if data.source is None:
            noise = rng.standard_normal((len(places[0]), target.shape[1])) * est._scaling.noise_std
            source, source_codes = est._scaling.decode(noise, 0.0, target.dtype), data.target_codes
        else:
            source, source_codes = data.source[places[0]], data.source_codes
        X, y = (est._layout.to_samples(rows) for rows in (source, target))
        names = getattr(est, "feature_names_in_", None)
        if est.labels != "condition":
            return {"X": _framed(X, names), "y": y, "metadata": None}
        codes = np.concatenate([source_codes[places[0]], data.target_codes[places[1]]])
        domain = np.repeat([1, -1], [len(X), len(y)])
        return {
            "X": _framed(np.concatenate([X, y]), names),
            "y": est.classes_[codes],
            "metadata": {"sample_domain": domain},
        }


def _finite(answer: np.ndarray) -> np.ndarray:
    rows = ~np.isfinite(answer).all(axis=-1)
    if rows.any():
        raise ValueError(
            f"The flow is not finite for {rows.sum()} of {rows.size} points: they lie too far outside "
            "the training data, or the numbers are too large for their dtype."
        )
    return answer
