"""What every flow estimator shares: the whole scikit-learn surface, written once."""

from __future__ import annotations

import copy
import logging
from abc import ABCMeta, abstractmethod
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted, check_scalar
from torch import nn

from sklearn_nsgf._sklearn import Interval, StrOptions, fit_context
from sklearn_nsgf._torch import inference_dtype, isolated_rng, make_generator, resolve_device
from sklearn_nsgf._training import TrainingResult, train_network
from sklearn_nsgf._validation import (
    FlowScaling,
    as_rows,
    check_flow_data,
    check_samples,
    check_target,
    check_times,
    float_dtype,
    is_target,
    to_dtype,
    warn_caller,
)
from sklearn_nsgf.flow import ArraySampler, GaussianSampler, TrajectoryPool, odeint
from sklearn_nsgf.flow._ode import N_EVALUATIONS, SOLVERS
from sklearn_nsgf.flow._pool import BlockMaker
from sklearn_nsgf.flow._samplers import Sampler
from sklearn_nsgf.metrics import ENERGY_MAX_ROWS, energy_distance
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
# Source rows kept for `sample`; more would only make files bigger.
MAX_SOURCE_ROWS = 10_000


class Clouds(NamedTuple):
    """Where the two minibatches of a flow come from, in the units of the flow."""

    source: Sampler
    target: Sampler


class BaseFlowTransport(OneToOneFeatureMixin, TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of the estimators.

    Subclasses set the parameters in `__init__` and implement `_learn`, `_follow` and `_velocity`.
    """

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
    def _learn(self, training: Clouds, held_out: Clouds | None, device: torch.device, rng) -> bool:
        """Fit in the units of the flow; return whether Ctrl-C ended it early."""

    @abstractmethod
    def _follow(self, Z, t_start, t_end, n_steps, solver, return_path) -> tuple[np.ndarray, np.ndarray]:
        """Nodes of the flow from `Z` on, or the last one alone, and their times, in units of the flow."""

    @abstractmethod
    def _velocity(self, X, t) -> np.ndarray:
        """`velocity` of checked rows and times."""

    @property
    @abstractmethod
    def n_function_evaluations_(self) -> int:
        """Evaluations of a velocity network that one `transform` costs."""

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the flow from a source sample to a target sample.

        Parameters
        ----------
        X : array-like of shape (n_source, n_features) or images
            Source sample; the target sample if `y` does not hold one. Images have the shape (n, H, W),
            (n, H, W, C) or (n, C, H, W).
        y : array-like of shape (n_target, n_features) or (n_source,), default=None
            Target sample, with any number of rows and no pairing with those of `X`. Without it, `X`
            is the target and the source is a normal distribution with the mean and the scale
            of `X`. A one-dimensional `y` (class labels) is ignored.

        Returns
        -------
        self : object
            The fitted estimator. Ctrl-C (KeyboardInterrupt) in the training ends it early with a warning and
            leaves what was learnt; with `warm_start` the next `fit` goes on from there. Before the first
            step of a training there is nothing to leave, and KeyboardInterrupt is raised.
        """
        continues = self.warm_start and self.__sklearn_is_fitted__()
        data = check_flow_data(self, X, y, reset=not continues)
        device = resolve_device(self.device)
        rng = check_random_state(self.random_state)
        if continues:
            if (data.source is None) != (self._source_rows is None):
                raise ValueError(
                    "warm_start=True: the fits before and this one must both have a source, or none."
                )
            # A continued fit sees new minibatches, also with a fixed seed.
            rng = check_random_state((rng.randint(MAX_SEED) + self.n_iter_) % MAX_SEED)
        else:
            # An interrupted fit must not leave the old network with new scales.
            vars(self).pop("device_", None)
            per_feature = self.standardize and self._layout.picture_shape is None
            self._scaling = FlowScaling(data.source, data.target, per_feature=per_feature)
            self._dtypes = data.dtypes
            self._source_rows = _thin(data.source, rng.randint(MAX_SEED))
        if data.source is not None and self._scaling.source_collapsed:
            warn_caller(
                "All rows of the source are one point. The flow moves them all alike and cannot spread "
                "them over the target.",
                UserWarning,
            )
        early_stopping = self.early_stopping
        if early_stopping == "auto":
            has_rows = data.source is not None
            early_stopping = has_rows and min(len(data.source), len(data.target)) < AUTO_STOPPING_ROWS
        fraction = self.validation_fraction if early_stopping else 0.0
        seed = rng.randint(MAX_SEED)
        sources, targets = (
            self._samplers(rows, t, fraction, seed) for rows, t in [(data.source, 0.0), (data.target, 1.0)]
        )
        training, held_out = map(Clouds, sources, targets)
        interrupted = self._learn(training, held_out if early_stopping else None, device, rng)
        if interrupted:
            warn_caller(
                f"fit was interrupted after {self.n_iter_} iterations and keeps what was learnt so far. "
                "With warm_start=True the next fit goes on from there.",
                UserWarning,
            )
        self.device_ = str(device)
        return self

    def _rate(self) -> float:
        if self.learning_rate != "auto":
            return self.learning_rate
        return PERCEPTRON_RATE if self.network is None and self._layout.image_shape is None else RATE

    def _samplers(
        self, rows: np.ndarray | None, t: float, fraction: float, seed: int
    ) -> tuple[Sampler, Sampler]:
        """Samplers of the rows to train on and of the `fraction` that is held out."""
        if rows is None:
            noise = GaussianSampler(self._scaling.noise_std)
            return noise, noise
        Z = self._scaling.encode(rows, t)
        if fraction == 0:
            return ArraySampler(Z), ArraySampler(Z[:0])
        order = np.random.RandomState(seed).permutation(len(Z))
        n_held_out = max(1, int(fraction * len(Z)))
        return ArraySampler(Z[order[n_held_out:]]), ArraySampler(Z[order[:n_held_out]])

    def transform(self, X):
        """Transport points of the source to the target.

        After `fit(X)` without a target the source is noise: points of the normal distribution that
        has the mean and the scale of the data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            New points or those of the fit, any number of them.

        Returns
        -------
        X_transported : ndarray of the shape of `X`
            float32 if `X` is, else float64. Images of type uint8 are answered in uint8 if the target's are,
            else in float32.
        """
        return self.integrate(X)

    def inverse_transform(self, X):
        """Transport points of the target back to the source.

        The flow is integrated backwards with the same number of steps; the round trip is exact only
        in the limit of many steps.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Points of the target.

        Returns
        -------
        X_original : ndarray of the shape of `X`
            With the type that `transform` has, and the source in the place of the target.
        """
        return self.integrate(X, t_start=1.0, t_end=0.0)

    def integrate(self, X, *, t_start=0.0, t_end=1.0, n_steps=None, solver=None, return_path=False):
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

        Returns
        -------
        X_t : ndarray of the shape of `X`, or of shape (n_steps + 1, \\*X.shape)
        """
        check_is_fitted(self)
        X = check_samples(self, X)
        for name, t in {"t_start": t_start, "t_end": t_end}.items():
            check_times(t, name)
        return self._transport(X, t_start, t_end, n_steps, solver, return_path)

    def velocity(self, X, t):
        """Velocity dx/dt of the flow.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Points.
        t : float or array-like of shape (n_samples,)
            Times between 0 (source) and 1 (target).

        Returns
        -------
        V : ndarray of the shape of `X`
            In units of the data: what a particle moves in the whole time from 0 to 1 at this speed.
        """
        check_is_fitted(self)
        X = as_rows(self, check_samples(self, X))
        V = self._velocity(X, check_times(t, "t", len(X)))
        return self._layout.to_samples(_finite(V.astype(X.dtype, copy=False)))

    def sample(self, n_samples=1, *, random_state=None):
        """Draw new points that follow the target's distribution.

        The source is drawn, from the normal distribution or from the rows of the source sample
        (with replacement, from at most 10 000 of them), and transported.

        Parameters
        ----------
        n_samples : int, default=1
            Number of points.
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
        dtype = float_dtype(self._dtypes[1])
        if self._source_rows is None:
            noise = rng.standard_normal((n_samples, len(self._scaling.noise_std)))
            Z = (noise * self._scaling.noise_std).astype(dtype)
        else:
            rows = self._source_rows[rng.randint(len(self._source_rows), size=n_samples)]
            Z = self._scaling.encode(rows.astype(dtype, copy=False), 0.0)
        return self._to_samples(*self._follow(Z, 0.0, 1.0, None, None, False), self._dtypes[1])[-1]

    def score(self, X, y=None):
        """Minus the energy distance between transported points and a target sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Source points; the target sample if `y` does not hold one, which is then compared with
            generated points.
        y : array-like of shape (n_target, n_features) or (n_samples,), default=None
            Target sample. One-dimensional labels are ignored.

        Returns
        -------
        score : float
            The higher the better; at most about zero. In units of the data, see
            `sklearn_nsgf.metrics.energy_distance`.
        """
        check_is_fitted(self)
        X = check_samples(self, X, ensure_min_samples=2)
        if is_target(y):
            y = check_target(self, y, ensure_min_samples=2)
            X = self._transport(X, 0.0, 1.0)
        elif self._source_rows is not None:
            raise ValueError(
                "score needs the target sample y: this estimator was fitted on a source and a target."
            )
        else:
            X, y = self.sample(min(len(X), ENERGY_MAX_ROWS), random_state=0), X
        return -energy_distance(as_rows(self, X), as_rows(self, y))

    def _transport(self, X, t_start, t_end, n_steps=None, solver=None, return_path=False):
        """`integrate` of checked samples and times."""
        Z = self._scaling.encode(as_rows(self, X), self._clock(t_start))
        dtype = X.dtype
        if return_path or t_end not in (0, 1) or self._dtypes[int(t_end)] != np.uint8:
            # Grey values are rounded where there are images, and nowhere else.
            dtype = float_dtype(dtype)
        path = self._to_samples(*self._follow(Z, t_start, t_end, n_steps, solver, return_path), dtype)
        return path if return_path else path[-1]

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
        tags.target_tags.required = False
        return tags


class NetworkFlowTransport(BaseFlowTransport):
    """Base of the flows of one velocity network, trained on batches that subclasses make.

    Subclasses set the parameters in `__init__` and implement `_make_pool`.
    """

    _parameter_constraints: dict = {
        **BaseFlowTransport._parameter_constraints,
        "n_steps": [Interval(Integral, 1, None, closed="left")],
    }

    @abstractmethod
    def _make_pool(
        self, clouds: Clouds, device: torch.device, seed: int, n_points: int | None
    ) -> TrajectoryPool:
        """Return where batches are drawn from; `n_points` source points are enough if it is given."""

    def _report(self, pool: TrajectoryPool) -> None:
        """Say what there is to say about the pool of a training that is over."""

    def _held_pool(
        self, make_blocks: BlockMaker, n_blocks: int, seed: int, n_points: int | None
    ) -> TrajectoryPool:
        return TrajectoryPool(
            make_blocks,
            n_blocks=n_blocks,
            seed=seed,
            n_held=self.pool_size if n_points is None else n_blocks,
            n_draws=self.max_iter,
            # Half the memory, and finer than the pixels' grey values.
            dtype=torch.float32 if self._layout.image_shape is None else torch.float16,
        )

    def _learn(self, training: Clouds, held_out: Clouds | None, device: torch.device, rng) -> bool:
        pool_seed, validation_seed, network_seed = rng.randint(MAX_SEED, size=3).tolist()
        continues = self.__sklearn_is_fitted__()
        pool, generator = (
            self._make_pool(training, device, pool_seed, None),
            make_generator(pool_seed, device),
        )
        validation = None
        if held_out is not None:
            n_points = VALIDATION_POINTS if self._layout.image_shape is None else VALIDATION_IMAGES
            validation_pool = self._make_pool(held_out, device, validation_seed, n_points)
            validation = validation_pool.sample(n_points, make_generator(validation_seed, device))
        # Whatever the caller has switched off: training needs gradients.
        with torch.inference_mode(mode=False), torch.enable_grad(), isolated_rng(network_seed):
            network = make_network(
                self._layout.image_shape or self._layout.sample_shape,
                network=self.network_ if continues else self.network,
                hidden_layer_sizes=self.hidden_layer_sizes,
                seed=network_seed,
            )
            result = train_network(
                self._on_rows(network).to(device),
                lambda n_samples: pool.sample(n_samples, generator),
                max_iter=self.max_iter,
                batch_size=self.batch_size,
                learning_rate=self._rate(),
                constant_rate=continues,
                compile=self.compile,
                validation=validation,
                n_iter_no_change=self.n_iter_no_change,
            )
        self._report(pool)
        if self.verbose:
            name = type(self).__name__
            logger.info("%s trained %d iterations, loss %.3g", name, result.n_iter, result.loss_curve[-1])
        self._keep(result, continues)
        return result.interrupted

    def _keep(self, result: TrainingResult, continues: bool) -> None:
        network = result.network.cpu()
        self.network_ = network.network if isinstance(network, ImageRows) else network
        if not continues:
            self.loss_curve_, self.validation_curve_, self.n_iter_ = [], [], 0
        self.loss_curve_ = self.loss_curve_ + result.loss_curve
        self.validation_curve_ = self.validation_curve_ + result.validation_curve
        self.n_iter_ += result.n_iter

    def _on_rows(self, network: nn.Module) -> nn.Module:
        image_shape = self._layout.image_shape
        return network if image_shape is None else ImageRows(network, image_shape)

    @property
    def n_function_evaluations_(self) -> int:
        """Evaluations of the velocity network that one `transform` costs."""
        check_is_fitted(self)
        return self.n_steps * N_EVALUATIONS[self.solver]

    def _follow(self, Z, t_start, t_end, n_steps, solver, return_path):
        n_steps = self.n_steps if n_steps is None else n_steps
        check_scalar(n_steps, "n_steps", Integral, min_val=1)
        solver = self.solver if solver is None else solver

        def flow_chunk(network: nn.Module, Z: torch.Tensor, t_start, t_end) -> torch.Tensor:
            answer = odeint(
                network,
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
        return in_chunks(flow_chunk, network, self.device, Z, starts, ends, axis=1), times

    def _velocity(self, X, t):
        Z = self._scaling.encode(X, t)
        network = self._on_rows(self.network_)
        V = in_chunks(lambda network, Z, t: network(t, Z), network, self.device, Z, t.astype(X.dtype))
        return V * self._scaling.spread + self._scaling.drift


@torch.no_grad()
def in_chunks(answer, network: nn.Module, device: str, *arrays: np.ndarray, axis: int = 0) -> np.ndarray:
    """Apply `answer(network, *rows)` to chunks of the arrays' rows, in their own precision."""
    device = resolve_device(device)
    dtype = inference_dtype(arrays[0].dtype, device)
    network = copy.deepcopy(network).to(device, dtype).eval()
    n_features = arrays[0][0].size
    n_rows = min(CHUNK_ROWS, max(1, CHUNK_SIZE // n_features))
    answers = [
        answer(network, *(torch.tensor(array[chunk]).to(device, dtype) for array in arrays)).cpu().numpy()
        for chunk in gen_batches(len(arrays[0]), n_rows)
    ]
    return np.concatenate(answers, axis=axis)


def _thin(rows: np.ndarray | None, seed: int) -> np.ndarray | None:
    """At most MAX_SOURCE_ROWS random rows."""
    if rows is None or len(rows) <= MAX_SOURCE_ROWS:
        return rows if rows is None else rows.copy()
    return rows[np.random.RandomState(seed).permutation(len(rows))[:MAX_SOURCE_ROWS]]


def _finite(answer: np.ndarray) -> np.ndarray:
    rows = ~np.isfinite(answer).all(axis=-1)
    if rows.any():
        raise ValueError(
            f"The flow is not finite for {rows.sum()} of {rows.size} points: they lie too far outside "
            "the training data, or the numbers are too large for their dtype."
        )
    return answer
