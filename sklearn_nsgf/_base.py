"""What fits every flow: arguments are checked, legs learnt, and one model kept."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from torch import nn

from sklearn_nsgf._data.check import FlowData, check_flow_data
from sklearn_nsgf._data.choice import find_frame
from sklearn_nsgf._data.chunks import joined
from sklearn_nsgf._data.outliers import warn_beyond_charts, warn_of_outliers, warn_of_units
from sklearn_nsgf._data.space import Space
from sklearn_nsgf._documentation import PAGE, question
from sklearn_nsgf._learning.checkpoint import Checkpoint, describe_fit
from sklearn_nsgf._learning.learn import MAX_SEED, FitJob, learn_leg
from sklearn_nsgf._learning.paths import Paths
from sklearn_nsgf._learning.processes import processes
from sklearn_nsgf._learning.strata import Fold, Stratum, make_folds, make_strata, with_kept_rows
from sklearn_nsgf._learning.tasks import FitTasks, callback_data
from sklearn_nsgf._model.leg import Leg
from sklearn_nsgf._model.model import FlowModel
from sklearn_nsgf._model.reservoir import count_rows, keep_rows
from sklearn_nsgf._parameters import architecture, training_settings
from sklearn_nsgf._sklearn import CallbackSupportMixin, Silence, fit_context, with_callbacks
from sklearn_nsgf._torch import memory_advice, resolve_device
from sklearn_nsgf._transport import FlowTransportMixin
from sklearn_nsgf._types import Answer, Blur
from sklearn_nsgf._warn import warn_caller

# Fewer rows than this can be learnt by heart in the default number of iterations, if they move from others.
AUTO_STOPPING_ROWS = 5000
# Fewer rows than this are too few to be held out once: all are, in turn. A generation from more does not
# learn them by heart, and what a fifth of them says would end it long before its best.
CROSS_VALIDATED_ROWS = 500
# Two folds of two rows.
FEWEST_ROWS = 4
# To order more rows, and to find their moments, takes longer than the training, which does not see them all.
MOST_ROWS = 2**18
MEMORY_ADVICE = (
    "A fit keeps the network, its gradients for one batch, and the pool there: lower batch_size or "
    "pool_size, or set device='cpu'. The estimator is as it was."
)


class BaseFlowTransport(CallbackSupportMixin, FlowTransportMixin, BaseEstimator):
    """Base of the estimators.

    Subclasses set the parameters in `__init__` and say how many tasks a fit consists of and what is learnt.
    A fit leaves a single attribute, `model_`, and assigns it when all is done.
    """

    _doc_link_module = "sklearn_nsgf"
    _doc_link_template = PAGE
    # Passed on by meta-estimators without being asked for.
    __metadata_request__fit = {"sample_domain": True}
    __metadata_request__partial_fit = {"sample_domain": True}

    @property
    @abstractmethod
    def _n_tasks(self) -> int:
        """Number of tasks that a fit consists of."""

    @abstractmethod
    def _learn(self, job: FitJob, before: FlowModel | None, model_of) -> tuple[FlowModel, bool]:
        """Learn the legs, and return the model and whether Ctrl-C ended it early.

        `model_of(*legs)` makes the model of its legs; `before` is the one to go on from.
        """

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike, y: ArrayLike | None = None, *, sample_domain: ArrayLike | None = None
    ) -> Self:
        """Learn the flow from a source sample to a target sample.

        Parameters
        ----------
        X : array-like of shape (n_source, n_features) or images
            Source sample. If `y` holds no target sample, `X` is the target; with `sample_domain` it holds
            both. Images have the shape (n, H, W), (n, H, W, C) or (n, C, H, W). A `numpy.memmap` of floats,
            integers or booleans is read in parts and never copied as a whole. An iterator of such arrays, or
            of pandas DataFrames of numbers, is written to a temporary file, one chunk in memory at a time.
        y : array-like of shape (n_target, n_features) or (n_samples,), default=None
            Target sample, with any number of rows, not paired with those of `X`; or an iterator. Without it,
            and without `sample_domain`, `X` is the target and the source is a normal distribution with the
            mean and the covariance of `X`, or of each class, see `frame`. A one-dimensional `y` holds a class
            for each row of `X`; `label_mode="ignore"` ignores it.
        sample_domain : array-like of shape (n_samples,), default=None
            Rows of `X` with a value >= 0 are the source, rows with a value < 0 the target. See
            `sklearn_nsgf.domains.stack_domains`.

        Returns
        -------
        self : object
            The fitted estimator. Ctrl-C (KeyboardInterrupt) during training stops early, warns and keeps what
            was learnt; with `warm_start` the next `fit` continues from there. Before the first training step
            there is nothing to keep, and KeyboardInterrupt is raised. A fit that raises leaves the estimator
            as it was. Both leave the file of `checkpoint`, if there is one, from which the same fit goes on.

        Raises
        ------
        ValueError, TypeError
            If an argument is not what is described above, or its numbers are too large for means and
            deviations to be floats.
        FloatingPointError
            If flows or the training are not finite, as between samples of extremely different size.
        """
        before = self.model_ if self.warm_start and self.__sklearn_is_fitted__() else None
        return self._fit(X, y, sample_domain, before, in_parts=False)

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike | None = None, *, sample_domain: ArrayLike | None = None
    ) -> Self:
        """Learn from another part of the data and keep what was learnt before.

        The first call works like `fit` and fixes the units of the flow and the classes. Each later call
        trains for another `max_iter` steps, at a constant rate once a network was kept, on flows between all
        rows seen so far: the new ones, and a fair choice of at most 10 000 earlier ones of each sample, which
        stand for all of them.
        The estimator keeps that choice, in files too. A plain `fit` keeps no target rows: a `partial_fit`
        after it continues with the new rows alone.

        Parameters
        ----------
        X : array-like of shape (n_source, n_features) or images
            As in `fit`.
        y : array-like of shape (n_target, n_features) or (n_samples,), default=None
            As in `fit`. Either every call has a target sample, or none.
        sample_domain : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        # scikit-learn leaves the parameters of later calls unchecked.
        self._validate_params()
        before = self.model_ if self.__sklearn_is_fitted__() else None
        return self._fit(X, y, sample_domain, before, in_parts=True)

    def fit_transform(
        self, X: ArrayLike, y: ArrayLike | None = None, *, sample_domain: ArrayLike | None = None
    ) -> Answer:
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
            With `sample_domain`, target rows are unchanged. After `fit(X)` without a target, the rows of `X`
            are read as noise; see `transform`.
        """
        X, y = joined(X, "X"), joined(y, "y (the target)")
        self.fit(X, y, sample_domain=sample_domain)
        labels = y if self.label_mode == "condition" else None
        return self.transform(X, labels=labels, sample_domain=sample_domain)

    def _fit(self, X, y, sample_domain, before: FlowModel | None, *, in_parts: bool) -> Self:
        team = processes()
        context = self._init_callback_context(max_subtasks=self._n_tasks) if team.is_first else Silence()
        if before is not None and self.label_mode != before.space.classes.mode:
            raise ValueError(
                f"label_mode={self.label_mode!r} was {before.space.classes.mode!r} in the first fit, and "
                "this one continues from there. Set it back, or fit afresh."
            )
        X, y = joined(X, "X"), joined(y, "y (the target)")
        data = check_flow_data(self, X, y, sample_domain, before and before.space)
        team.check_equal([data.target, data.source])
        device, random_state, checkpoint = resolve_device(self.device), self.random_state, None
        if self.checkpoint is not None:
            if team.size > 1:
                raise ValueError(
                    f"checkpoint={str(self.checkpoint)!r} keeps the fit of one process, and {team.size} "
                    "train together here: leave checkpoint=None."
                )
            description = describe_fit(self, data, before, device, in_parts=in_parts)
            checkpoint = Checkpoint(self.checkpoint, description, random_state)
            random_state = checkpoint.seed
        data = data.thinned(max(MOST_ROWS, self.max_iter * self.batch_size))
        rng = check_random_state(random_state)
        rng.set_state(team.ask_first(rng.get_state)())
        if before is None:
            space = team.ask_first(self._new_space)(data)
        else:
            if (data.source is None) != (before.source is None):
                had, has = ("no", "one") if before.source is None else ("a", "none")
                raise ValueError(
                    f"The fits before had {had} source sample, and this one has {has}: pass X and y to all "
                    "calls, or X alone to all."
                )
            space = before.space
            if space.frame.charts is not None:
                source = None if data.source is None else data.source.rows
                warn_beyond_charts(space.frame.charts, source, data.target.rows, data.table)
            # A continued fit sees new minibatches, also with a fixed seed.
            rng = check_random_state((rng.randint(MAX_SEED) + before.n_iter) % MAX_SEED)
        if data.source is not None and space.frame.source_collapsed:
            warn_caller(
                "All source rows are equal. The flow moves them all alike and cannot spread them over the "
                "target." + question("faq-equal-rows"),
                UserWarning,
            )
        if space.frame.target_collapsed:
            warn_caller(
                "All target rows are equal. The flow sends every row there." + question("faq-equal-rows"),
                UserWarning,
            )
        kept_seed, split_seed = rng.randint(MAX_SEED, size=2).tolist()
        tasks = FitTasks(self, context, callback_data(space, data))
        context.call_on_fit_task_begin(estimator=self, **tasks.data)
        settings = training_settings(self, space.layout.event_shape)
        n_folds = self._n_folds(data, space, before, in_parts=in_parts)
        if n_folds and before is None and data.n_rows < FEWEST_ROWS:
            warn_caller(
                f"X or y has {data.n_rows} rows, and at least {FEWEST_ROWS} are needed to tell whether a "
                f"network is better than the start alone, the {space.frame.name}, which is kept. Fit with "
                "more rows, or set early_stopping=False to train a network all the same."
                + question("faq-few-rows"),
                UserWarning,
            )
            settings, n_folds = settings._replace(max_iter=0), 0
        own_frames = n_folds > 1 and before is None
        training, held_out, folds = self._strata(data, space, split_seed, n_folds, own_frames=own_frames)
        if in_parts and before is not None and before.replay is not None:
            training = with_kept_rows(training, *before.replay, space)
            folds = [
                each._replace(training=with_kept_rows(each.training, *before.replay, space)) for each in folds
            ]
        follow = bool(folds) or (not held_out and self._steps_follow_rows(data, space))
        job = FitJob(space, training, held_out, folds, follow, settings, device, rng, tasks, checkpoint)
        model_of = self._model_maker(job, data, before, in_parts, kept_seed)
        with memory_advice(MEMORY_ADVICE):
            model, interrupted = self._learn(job, before, model_of)
        arguments = {"reconstruction_attributes": lambda: {"model_": model}, **tasks.data}
        context.call_on_fit_task_end(estimator=self, **arguments)
        self.model_ = model
        if checkpoint is not None and not interrupted:
            checkpoint.remove()
        if (held_out or folds) and model.n_kept == 0 and not interrupted:
            warn_caller(
                "No network brings the held-out rows closer to the target than the start alone, the "
                f"{space.frame.name}, which is kept. Fit with more rows, try another frame, random_state "
                "or estimator, or set early_stopping=False to keep the network as trained."
                + question("faq-few-rows"),
                UserWarning,
            )
        if interrupted:
            kept = "what was learnt so far" if model.n_kept else f"the start alone, the {space.frame.name}"
            warn_caller(
                f"fit was interrupted after {self.n_iter_} iterations and keeps {kept}. The next "
                "partial_fit, or fit with warm_start=True, continues from there.",
                UserWarning,
            )
        return self

    def _new_space(self, data: FlowData) -> Space:
        per_feature = self.standardize and data.layout.picture_shape is None
        source = None if data.source is None else data.source.rows
        if self.frame == "quantile" and data.layout.picture_shape is not None:
            raise ValueError(
                "frame='quantile' is for rows, and X has images: expected 'auto', 'shift' or another frame."
            )
        frame = find_frame(
            source,
            data.target.rows,
            self.frame,
            per_feature=per_feature,
            categorical=list(data.table.categories),
            codes=data.target.codes if data.classes.are_seen else None,
        )
        if data.layout.picture_shape is None:
            for name, sample in (("source", data.source), ("target", data.target)):
                if sample is not None:
                    warn_of_outliers(sample.rows, name, data.table)
            if not self.standardize:
                warn_of_units(data.target.rows, data.table)
        dtypes = tuple(dtype.name for dtype in data.dtypes)
        return Space(data.layout, frame, dtypes, data.classes, data.table)

    def _n_folds(self, data: FlowData, space: Space, before: FlowModel | None, *, in_parts: bool) -> int:
        """How often rows are held out: never, once, or of few rows all in turn."""
        early_stopping, are_images = self.early_stopping, len(space.layout.event_shape) > 1
        if early_stopping == "auto":
            n_rows = data.n_rows
            if in_parts and before is not None and before.replay is not None:
                n_rows += min(sum(kept.n_seen) for kept in before.replay if kept is not None)
            if data.source is None:
                early_stopping = n_rows < CROSS_VALIDATED_ROWS and not are_images
            else:
                early_stopping = n_rows < AUTO_STOPPING_ROWS
        if not early_stopping or self.max_iter == 0:
            return 0
        # Folds take several trainings, and a network that goes on has seen their rows.
        goes_on = before is not None and before.n_kept > 0
        if goes_on or are_images or not FEWEST_ROWS <= data.n_rows < CROSS_VALIDATED_ROWS:
            return 1
        return min(max(2, int(1 / self.validation_fraction)), data.n_rows // 2)

    def _steps_follow_rows(self, data: FlowData, space: Space) -> bool:
        """Whether a training without held-out rows is short if rows are few."""
        is_table = len(space.layout.event_shape) == 1
        return self.early_stopping == "auto" and data.source is None and is_table

    def _strata(
        self, data: FlowData, space: Space, seed: int, n_folds: int, *, own_frames: bool
    ) -> tuple[list[Stratum], list[Stratum], list[Fold]]:
        """The flows to train on, those to hold out, and those of both for each of several folds."""
        samples, folds = (data.source, data.target, space), []
        if n_folds:
            folds = make_folds(*samples, self.validation_fraction, seed, n_folds, own_frames)
        if n_folds and not folds:
            warn_caller(
                "No class has two rows in each sample, of which one could be held out: the fit does not stop "
                "early, and may learn the rows by heart. Set early_stopping=False to train without this "
                "warning, or label_mode='ignore' to hold out rows of any class.",
                UserWarning,
            )
        if folds and n_folds == 1:
            return *folds[0], []
        return make_strata(*samples), [], folds

    def _model_maker(self, job: FitJob, data: FlowData, before: FlowModel | None, in_parts: bool, seed: int):
        """A function that makes the model of its legs."""
        classes, source, replay = job.space.classes, None, None
        n_seen = count_rows(data.source or data.target, classes, before and before.n_seen)
        if data.source is not None:
            source = keep_rows(data.source, classes, before and before.source, seed)
        if in_parts:
            # Both of the same parts: those that `fit` was shown are not among them.
            older = (None, None) if before is None or before.replay is None else before.replay
            old_source, old_target = older
            kept = source
            if source is not None and before is not None and old_source is not before.source:
                kept = keep_rows(data.source, classes, old_source, seed)
            replay = kept, keep_rows(data.target, classes, old_target, seed)
        return lambda *legs: FlowModel(job.space, source, n_seen, legs, job.device, replay)

    @property
    def loss_curve_(self) -> list[float]:
        """Training loss at the evaluations, of all networks one after the other."""
        legs = self._fitted_model.legs
        return [loss for leg in legs if leg is not None for loss in leg.curves.loss]

    @property
    def validation_curve_(self) -> list[float]:
        """Energy distance of held-out rows at each look, in the same way; empty without early stopping."""
        return [
            value for leg in self._fitted_model.legs if leg is not None for value in leg.curves.validation
        ]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.target_tags.required = self.label_mode != "ignore"
        tags.target_tags.one_d_labels = self.label_mode != "ignore"
        return tags


class SingleFlowTransport(BaseFlowTransport):
    """Base of the flows of one leg.

    Subclasses set the parameters in `__init__` and say which paths the leg is learnt from.
    """

    @abstractmethod
    def _paths(self, space: Space) -> Paths:
        """What the leg is learnt from."""

    _n_tasks = 1

    def _n_steps(self) -> tuple[int, ...]:
        return (self.n_steps,)

    def _learn(self, job, before, model_of):
        leg, interrupted = learn_leg(
            type(self).__name__,
            self._paths(job.space),
            architecture(self, job.space.layout.event_shape, job.space.classes.n_seen),
            (self._n_steps(), self.solver),
            job,
            before and before.legs[0],
            model_of,
        )
        return model_of(leg), interrupted

    @property
    def _leg(self) -> Leg:
        return self._fitted_model.legs[0]

    @property
    def network_(self) -> nn.Module:
        """The trained velocity network, in standardised units, on the CPU."""
        return self._leg.network

    @property
    def blur_(self) -> Blur:
        """Blur in standardised units."""
        return self._leg.blur
