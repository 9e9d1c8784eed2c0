"""What every flow estimator shares: the whole scikit-learn surface, written once."""

from __future__ import annotations

import copy
import logging
import warnings
from abc import ABCMeta, abstractmethod
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted, check_scalar, validate_data
from torch import nn

from sklearn_nsgf._sklearn import Interval, StrOptions, fit_context
from sklearn_nsgf._torch import inference_dtype, isolated_rng, resolve_device
from sklearn_nsgf._training import BatchSource, train_network
from sklearn_nsgf._validation import (
    FLOAT_DTYPES,
    FlowScaling,
    check_flow_data,
    check_target,
    check_times,
    is_target,
)
from sklearn_nsgf.flow import ArraySampler, GaussianSampler, odeint
from sklearn_nsgf.flow._ode import SOLVERS
from sklearn_nsgf.flow._samplers import Sampler
from sklearn_nsgf.metrics import ENERGY_MAX_ROWS, energy_distance
from sklearn_nsgf.networks import make_network

logger = logging.getLogger("sklearn_nsgf")

CHUNK_SIZE = 16_384
VALIDATION_POINTS = 2048
# Fewer rows than this can be learnt by heart in the default number of iterations.
AUTO_STOPPING_ROWS = 5000
# Source rows kept for `sample`; more would only make files bigger.
MAX_SOURCE_ROWS = 10_000


class BaseFlowTransport(OneToOneFeatureMixin, TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of the flow estimators: a velocity network, trained on batches that subclasses make.

    Subclasses set the parameters in `__init__` and implement `_make_batches`.
    """

    _parameter_constraints: dict = {
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "solver": [StrOptions(set(SOLVERS))],
        "network": [None, nn.Module, callable],
        "hidden_layer_sizes": ["array-like"],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "standardize": ["boolean"],
        "device": [str],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    @abstractmethod
    def _make_batches(
        self,
        source: Sampler,
        target: Sampler,
        device: torch.device,
        seed: int,
        n_points: int | None,
    ) -> BatchSource:
        """Return where batches are drawn from; `n_points` source points are enough if it is given."""

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the flow from a source sample to a target sample.

        Parameters
        ----------
        X : array-like of shape (n_source, n_features)
            Source sample; the target sample if `y` does not hold one.
        y : array-like of shape (n_target, n_features) or (n_source,), default=None
            Target sample, with any number of rows and no pairing with those of `X`. Without it, `X`
            is the target and the source is a normal distribution with the mean and the scale
            of `X`. A one-dimensional `y` (class labels) is ignored.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        # An interrupted fit must not leave the old network with new scales.
        vars(self).pop("network_", None)
        data = check_flow_data(self, X, y)
        device = resolve_device(self.device)
        rng = check_random_state(self.random_state)
        seeds = rng.randint(np.iinfo(np.int32).max, size=4).tolist()
        batch_seed, validation_seed, network_seed, rows_seed = seeds

        self._scaling = FlowScaling(data.source, data.target, per_feature=self.standardize)
        if data.source is not None and self._scaling.source_collapsed:
            warnings.warn(
                "All rows of the source are one point. The flow moves them all alike and cannot spread "
                "them over the target.",
                UserWarning,
                stacklevel=3,
            )
        self._dtype = data.target.dtype
        self._source_rows = _thin(data.source, rows_seed)
        early_stopping = self.early_stopping
        if early_stopping == "auto":
            n_rows = len(data.target) if data.source is None else min(map(len, data))
            early_stopping = n_rows < AUTO_STOPPING_ROWS
        fraction = self.validation_fraction if early_stopping else 0.0
        source, held_out_source = self._samplers(data.source, 0.0, fraction, rows_seed)
        target, held_out_target = self._samplers(data.target, 1.0, fraction, rows_seed)
        draw = self._make_batches(source, target, device, batch_seed, None)
        validation = None
        if early_stopping:
            validation = self._make_batches(
                held_out_source, held_out_target, device, validation_seed, VALIDATION_POINTS
            )(VALIDATION_POINTS)
        # Whatever the caller has switched off: training needs gradients.
        with torch.inference_mode(mode=False), torch.enable_grad(), isolated_rng(network_seed):
            network = make_network(
                self.n_features_in_,
                network=self.network,
                hidden_layer_sizes=self.hidden_layer_sizes,
                seed=network_seed,
            )
            result = train_network(
                network.to(device),
                draw,
                max_iter=self.max_iter,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                validation=validation,
                n_iter_no_change=self.n_iter_no_change,
            )
        if self.verbose:
            logger.info("trained %d iterations, loss %.3g", result.n_iter, result.loss_curve[-1])
        self.network_ = result.network.cpu()
        self.loss_curve_ = result.loss_curve
        self.validation_curve_ = result.validation_curve
        self.n_iter_ = result.n_iter
        self.device_ = str(device)
        return self

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
        X : array-like of shape (n_samples, n_features)
            New points or those of the fit, any number of them.

        Returns
        -------
        X_transported : ndarray of shape (n_samples, n_features)
            float32 if `X` is, else float64.
        """
        return self.integrate(X)

    def inverse_transform(self, X):
        """Transport points of the target back to the source.

        The flow is integrated backwards with the same number of steps; the round trip is exact only
        in the limit of many steps.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points of the target.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
        """
        return self.integrate(X, t_start=1.0, t_end=0.0)

    def integrate(self, X, *, t_start=0.0, t_end=1.0, n_steps=None, solver=None, return_path=False):
        """Follow the flow from one time to another; 0 is the source and 1 the target.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points at time `t_start`.
        t_start, t_end : float, default=0 and 1
            Times between 0 and 1. With `t_end < t_start` the flow runs backwards.
        n_steps : int, default=None
            Number of steps; by default the estimator's `n_steps`.
        solver : {"euler", "midpoint", "heun", "rk4"}, default=None
            By default the estimator's `solver`.
        return_path : bool, default=False
            Whether to return the points after every step, the first ones included.

        Returns
        -------
        X_t : ndarray of shape (n_samples, n_features) or (n_steps + 1, n_samples, n_features)
        """
        check_is_fitted(self, "network_")
        X = validate_data(self, X, reset=False, dtype=FLOAT_DTYPES)
        for name, t in {"t_start": t_start, "t_end": t_end}.items():
            check_times(t, name)
        n_steps = self.n_steps if n_steps is None else n_steps
        solver = self.solver if solver is None else solver

        return self._flow(X, t_start, t_end, n_steps, solver, return_path)

    def velocity(self, X, t):
        """Velocity dx/dt of the flow.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points.
        t : float or array-like of shape (n_samples,)
            Times between 0 (source) and 1 (target).

        Returns
        -------
        V : ndarray of shape (n_samples, n_features)
            In units of the data: what a particle moves in the whole time from 0 to 1 at this speed.
        """
        check_is_fitted(self, "network_")
        X = validate_data(self, X, reset=False, dtype=FLOAT_DTYPES)
        t = check_times(t, "t", len(X))
        Zt = np.column_stack([self._scaling.encode(X, t), t.astype(X.dtype)])
        V = self._in_chunks(lambda network, Zt: network(Zt[:, -1], Zt[:, :-1]), Zt)
        return _finite((V * self._scaling.scale + self._scaling.drift).astype(X.dtype, copy=False))

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
        X : ndarray of shape (n_samples, n_features)
            With the dtype of the fit.
        """
        check_is_fitted(self, "network_")
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        rng = check_random_state(random_state)
        if self._source_rows is None:
            noise = rng.standard_normal((n_samples, self.n_features_in_))
            X = self._scaling.decode(noise * self._scaling.noise_std, 0.0, self._dtype)
        else:
            X = self._source_rows[rng.randint(len(self._source_rows), size=n_samples)]
        return self._flow(X, 0.0, 1.0, self.n_steps, self.solver)

    def score(self, X, y=None):
        """Minus the energy distance between transported points and a target sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
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
        check_is_fitted(self, "network_")
        X = validate_data(self, X, reset=False, dtype=FLOAT_DTYPES, ensure_min_samples=2)
        if is_target(y):
            y = check_target(self, y, ensure_min_samples=2)
            return -energy_distance(self._flow(X, 0.0, 1.0, self.n_steps, self.solver), y)
        if self._source_rows is not None:
            raise ValueError(
                "score needs the target sample y: this estimator was fitted on a source and a target."
            )
        generated = self.sample(min(len(X), ENERGY_MAX_ROWS), random_state=0)
        return -energy_distance(generated, X)

    def _flow(self, X, t_start, t_end, n_steps, solver, return_path=False):
        """`integrate` of checked points and times."""
        check_scalar(n_steps, "n_steps", Integral, min_val=1)

        def flow_chunk(network: nn.Module, Z: torch.Tensor) -> torch.Tensor:
            return odeint(
                network,
                Z,
                n_steps=n_steps,
                t_start=t_start,
                t_end=t_end,
                solver=solver,
                return_path=return_path,
            )

        Z = self._in_chunks(flow_chunk, self._scaling.encode(X, t_start), return_path)
        times = np.linspace(t_start, t_end, n_steps + 1)[:, None] if return_path else t_end
        return _finite(self._scaling.decode(Z, times, X.dtype))

    @torch.no_grad()
    def _in_chunks(self, answer, Z: np.ndarray, return_path=False) -> np.ndarray:
        """Apply `answer(network, rows)` to chunks of rows, in their own precision."""
        device = resolve_device(self.device)
        dtype = inference_dtype(Z.dtype, device)
        network = copy.deepcopy(self.network_).to(device, dtype)
        answers = [
            answer(network, torch.from_numpy(Z[chunk]).to(device, dtype)).cpu().numpy()
            for chunk in gen_batches(len(Z), CHUNK_SIZE)
        ]
        return np.concatenate(answers, axis=1 if return_path else 0)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.target_tags.required = False
        return tags


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
