"""What a fitted flow can be asked: to transport, to generate, and how well it does."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, check_scalar

from sklearn_nsgf._data.charts import MIN_ROWS
from sklearn_nsgf._data.check import check_samples, check_target, check_times
from sklearn_nsgf._data.outliers import warn_of_far_rows
from sklearn_nsgf._frames import library_of
from sklearn_nsgf._model.model import Integration
from sklearn_nsgf._sklearn import in_container, output_container
from sklearn_nsgf._types import Answer, Seed, Solver
from sklearn_nsgf.domains import any_array, is_target, source_mask
from sklearn_nsgf.flow import n_evaluations
from sklearn_nsgf.metrics import make_transport_scorer

# Numbers of an array that are transformed at a time where the answer is written into another one. More leave
# the cache of a CPU, fewer are little work for a GPU.
_PART_SIZE = 2**20


class FlowTransportMixin(OneToOneFeatureMixin, TransformerMixin, metaclass=ABCMeta):
    """Everything that reads `model_`. Arguments are checked here, the rest is the model's."""

    # Passed on by meta-estimators without being asked for.
    __metadata_request__transform = {"sample_domain": True, "labels": True}
    __metadata_request__inverse_transform = {"labels": True}
    __metadata_request__score = {"sample_domain": True}

    @abstractmethod
    def _n_steps(self) -> tuple[int, ...]:
        """Number of steps of each phase, as the parameters say now."""

    def transform(
        self,
        X: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        sample_domain: ArrayLike | None = None,
        out: NDArray[Any] | None = None,
    ) -> Answer:
        """Transport points of the source to the target.

        After `fit(X)` without a target, the source is noise: the normal distribution with the mean and the
        covariance of the data, with `label_mode="condition"` of the class, or with the standard deviations of
        the data alone, depending on `frame`. Where rows lie in clusters, and for images, it is a mixture of
        such distributions, one for each cluster of the data: noise of one's own then comes from
        `inverse_transform`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Any number of points, new ones or those of the fit.
        labels : label or array-like of shape (n_samples,), default=None
            Class of each point, or one for all, for `label_mode="condition"` only.
        sample_domain : array-like of shape (n_samples,), default=None
            Rows with a value < 0 belong to the target and come back unchanged. Without it, all rows belong to
            the source.
        out : ndarray of the shape of `X`, default=None
            Where the answer is written, part by part: with a `numpy.memmap` for `X` and for `out` neither is
            ever in the memory as a whole. Of floats, or of uint8 for images that come back as such. `X` is
            then an array, and may be `out` itself. Parts before one that raises are written.

        Returns
        -------
        X_transported : ndarray of the shape of `X`
            `out` if it is given. float32 if `X` is float32, otherwise float64. uint8 images come back as
            uint8 if the target's images are uint8, otherwise as float32.
        """
        check_is_fitted(self)
        self._check_container()
        if out is not None:
            return self._transform_into(out, X, labels, sample_domain)
        space = self.model_.space
        samples = check_samples(self, X, space)
        if sample_domain is None:
            codes = space.classes.codes_of(labels, len(samples), "rows of X")
            return self._answer(self._transported(samples, codes), 1.0, X)
        is_source = source_mask(sample_domain, len(samples))
        answer = samples.astype(space.answer_dtype(samples.dtype, 1.0))
        if is_source.any():
            codes = space.classes.codes_of(labels, len(samples), "rows of X", is_source)
            answer[is_source] = self._transported(samples[is_source], codes)
        return self._answer(answer, 1.0, X)

    def _transform_into(self, out, X, labels, sample_domain):
        """Transform part by part."""
        if not (isinstance(X, np.ndarray) and isinstance(out, np.ndarray)) or X.shape != out.shape:
            raise ValueError(
                f"X and out must be NumPy arrays of the same shape: X is {_describe(X)}, and out is "
                f"{_describe(out)}."
            )
        space = self.model_.space
        dtype = space.answer_dtype(X.dtype, 1.0)
        if not np.can_cast(dtype, out.dtype, "same_kind") or np.iscomplexobj(out):
            raise ValueError(
                f"out has the dtype {out.dtype}, and the answers are {dtype}: expected an array of floats, "
                "with dtype=np.float32 or np.float64."
            )
        if not out.flags.writeable:
            raise ValueError(
                "out is read-only: expected an array that can be written, such as np.memmap(..., mode='r+')."
            )
        if output_container(self) != "default" or space.table.is_needed:
            raise ValueError("out takes arrays, and these answers are DataFrames: transform part by part.")
        chosen = slice(None) if sample_domain is None else source_mask(sample_domain, len(X))
        space.classes.codes_of(labels, len(X), "rows of X", chosen)
        each_row = {"labels": labels, "sample_domain": sample_domain}
        each_row = {name: any_array(values) for name, values in each_row.items() if np.ndim(values) == 1}
        n_rows = max(1, _PART_SIZE // space.layout.n_features)
        for start in range(0, len(X), n_rows):
            part = slice(start, start + n_rows)
            options = {"labels": labels} | {name: values[part] for name, values in each_row.items()}
            answer = self.transform(X[part], **options)
            np.copyto(out[part], answer, casting="same_kind")
        return out

    def inverse_transform(self, X: ArrayLike, *, labels: ArrayLike | None = None) -> Answer:
        """Transport points of the target back to the source.

        The flow is integrated backwards with the same number of steps. The round trip is exact only in the
        limit of many steps, and of columns that are read as scores (see `frame`) only where values do not
        repeat: equal values are spread over their step, and come back from elsewhere in it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Points of the target.
        labels : label or array-like of shape (n_samples,), default=None
            As in `transform`.

        Returns
        -------
        X_original : ndarray of the shape of `X`
            Its type follows the rule of `transform`, with source and target swapped.
        """
        return self.integrate(X, t_start=1.0, t_end=0.0, labels=labels)

    def integrate(
        self,
        X: ArrayLike,
        *,
        t_start: float = 0.0,
        t_end: float = 1.0,
        n_steps: int | None = None,
        solver: Solver | None = None,
        return_path: bool = False,
        labels: ArrayLike | None = None,
    ) -> Answer:
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
        X_t : ndarray of the shape of `X`, or of shape (n_nodes, \\*X.shape)
            With `return_path` the start and the points after every step, of all phases; always an array. A
            DataFrame otherwise if `set_output` asks for one.
        """
        check_is_fitted(self)
        self._check_container()
        for name, t in {"t_start": t_start, "t_end": t_end}.items():
            check_times(t, name)
        samples, codes = self._check_points(X, labels)
        how = self._integration(n_steps, solver)
        if return_path:
            return self.model_.path(samples, codes, t_start, t_end, how)
        return self._answer(self.model_.transport(samples, codes, t_start, t_end, how), t_end, X)

    def velocity(self, X: ArrayLike, t: ArrayLike, *, labels: ArrayLike | None = None) -> NDArray[Any]:
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
            In units of the data: the distance a particle would travel at this speed from time 0 to 1.
        """
        check_is_fitted(self)
        X, codes = self._check_points(X, labels)
        return self.model_.velocity(X, codes, check_times(t, "t", len(X)), self._integration())

    def sample(
        self, n_samples: int = 1, *, labels: ArrayLike | None = None, random_state: Seed = None
    ) -> Answer:
        """Draw new points from the learnt target distribution.

        Source points are drawn and transported. They come from the normal distribution, or with replacement
        from the source sample, of which at most 10 000 rows are kept.

        Parameters
        ----------
        n_samples : int, default=1
            Number of points.
        labels : label or array-like of shape (n_samples,), default=None
            Class of each point, or one for all, for `label_mode="condition"` only. By default, classes are
            drawn with their frequencies in the fit.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), or images
            With the shape and the dtype of the fit; a DataFrame if `set_output` asks for one.
        """
        check_is_fitted(self)
        self._check_container()
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        rng = check_random_state(random_state)
        classes = self.model_.space.classes
        if labels is None and classes.are_seen:
            codes = self.model_.draw_codes(n_samples, rng)
        else:
            codes = classes.codes_of(labels, n_samples, "points (n_samples)")
        return self._answer(self.model_.sample(n_samples, codes, self._integration(), rng), 1.0)

    def score(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        sample_domain: ArrayLike | None = None,
        sample_weight: None = None,
    ) -> float:
        """Minus the energy distance between transported points and a target sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Source points. If `y` holds no target sample, `X` is the target and is compared with generated
            points; with `sample_domain` it holds both samples.
        y : array-like of shape (n_target, n_features) or (n_samples,), default=None
            Target sample. With `label_mode="condition"` and `sample_domain`, one-dimensional labels tell the
            class in which each point is transported.
        sample_domain : array-like of shape (n_samples,), default=None
            Values >= 0 for the source rows of `X` and < 0 for its target rows.
        sample_weight : None
            Not supported; present because scikit-learn's meta-estimators pass it.

        Returns
        -------
        score : float
            Higher is better; about zero is the best. Each feature counts in the target's standard deviation;
            see `sklearn_nsgf.metrics.make_transport_scorer`.
        """
        check_is_fitted(self)
        if sample_weight is not None:
            raise ValueError("sample_weight must be None: the flow does not support weights.")
        space = self.model_.space
        checked = check_samples(self, X, space, ensure_min_samples=2)
        if is_target(y):
            target = check_target(y, space.layout, space.table, ensure_min_samples=2)
            y = y if space.table.categories else target
        # A frame stays one, or `transform` would miss its names.
        X = X if hasattr(X, "columns") or space.table.categories else checked
        return make_transport_scorer("energy_distance")(self, X, y, sample_domain=sample_domain)

    @property
    def _fitted_model(self):
        """What attributes are read from."""
        check_is_fitted(self)
        return self.model_

    @property
    def n_function_evaluations_(self) -> int:
        """Evaluations of a velocity network that one `transform` costs."""
        phases, how = self._fitted_model.phases, self._integration()
        steps = zip(how.n_steps, phases, strict=True)
        return n_evaluations(how.solver) * sum(n for n, phase in steps if phase.leg is not None)

    @property
    def from_noise_(self) -> bool:
        """Whether the source is the normal distribution, as after `fit(X)`."""
        return self._fitted_model.source is None

    @property
    def device_(self) -> str:
        """Device of the fit."""
        return self._fitted_model.device

    @property
    def n_iter_(self) -> int:
        """Optimiser steps that the velocity networks have taken."""
        return self._fitted_model.n_iter

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels that the fit knows, sorted."""
        labels = self._fitted_model.space.classes.labels
        if labels is None:
            raise AttributeError("The fit ignored labels: there are no classes_.")
        return labels

    @property
    def n_features_in_(self) -> int:
        """Number of features."""
        return self._fitted_model.space.layout.n_features

    @property
    def feature_names_in_(self) -> NDArray[np.object_]:
        """Names of the features."""
        names = self._fitted_model.space.table.names
        if names is None:
            raise AttributeError("The data of the fit had no feature_names_in_.")
        return names

    def _integration(self, n_steps: int | None = None, solver: str | None = None) -> Integration:
        steps = self._n_steps()
        if n_steps is not None:
            steps = (n_steps,) * len(steps)
        for each in steps:
            check_scalar(each, "n_steps", Integral, min_val=1)
        return Integration(steps, self.solver if solver is None else solver, self.device)

    def _check_points(self, X, labels):
        """Samples and the classes that the network is told of them, None if it is told none."""
        space = self.model_.space
        X = check_samples(self, X, space)
        return X, space.classes.codes_of(labels, len(X), "rows of X")

    def _transported(self, samples, codes):
        """Samples of the source, at the target."""
        space, source = self.model_.space, self.model_.source
        if source is not None and sum(source.n_seen) >= MIN_ROWS and space.layout.picture_shape is None:
            warn_of_far_rows(samples, source.low, source.high, space.table)
        return self.model_.transport(samples, codes, 0.0, 1.0, self._integration())

    def _answer(self, samples, t: float, X=None):
        """Samples at time t in the container that is asked for; a frame where there are categories."""
        table, container = self.model_.space.table, output_container(self)
        if container == "default" and table.is_needed:
            container = library_of(X) or table.library
        if container == "default" or table.library is None:
            return in_container(self, table.decode(samples), X)
        index = X.index if library_of(X) == "pandas" else None
        return table.to_frame(samples, self.model_.clock(t), container, index)

    def _check_container(self) -> None:
        layout = self.model_.space.layout
        if layout.picture_shape is not None and output_container(self) != "default":
            raise ValueError(
                f"set_output(transform={output_container(self)!r}) is for rows, and these samples have the "
                f"shape {layout.sample_shape}: images come as arrays. Use set_output(transform='default')."
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")


def _describe(X) -> str:
    return f"a {type(X).__name__}" + (f" of shape {X.shape}" if hasattr(X, "shape") else "")
