"""The frame of a flow: coordinates in which source and target already agree as far as is known."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf

from sklearn_nsgf._data.rows import SampleRows
from sklearn_nsgf.flow import blur_schedule
from sklearn_nsgf.flow._samplers import chunks, tree_order

KINDS = ("none", "shift", "scale", "linear")
NAMES = {"none": "identity", "shift": "shift of the mean", "scale": "scaled shift", "linear": "linear map"}
# Rows of each sample and folds from which the kind is chosen.
CHOICE_ROWS, N_FOLDS = 1000, 5
# Covariances are estimated from so many rows at most, for so many features at most, and from so many numbers.
COVARIANCE_ROWS, COVARIANCE_FEATURES, COVARIANCE_SIZE = 10_000, 1024, 2**21


class Frame:
    r"""Between the data's coordinates and the flow's.

    A point z of the flow stands for ``x_t = centre_t + scale * (axes diag(w_t) axes^T z)`` at time t, with
    ``w_t = (1 - t) at_source + t at_target``. A point that does not move in the flow moves on a straight line
    in the data: by the linear map that takes mean and covariance of the source to those of the target, if the
    frame is "linear". That map is the optimal transport between two normal distributions [1]_, and the line
    its displacement interpolation. "scale" knows standard deviations alone, "shift" means alone.

    Distances are measured in one unit for each feature, or one for all. A feature that is constant in the
    target comes back as that constant.

    Parameters
    ----------
    source, target : Moments
        The same for a normal source.
    kind : {"none", "shift", "scale", "linear"}
    per_feature : bool
        Whether each feature has a unit of its own.

    References
    ----------
    .. [1] Dowson, Landau. The Fréchet distance between multivariate normal distributions. Journal of
       Multivariate Analysis 12(3), 1982.
    """

    def __init__(self, source: Moments, target: Moments, *, kind: str, per_feature: bool) -> None:
        self.kind, self.source_collapsed = kind, not source.std.any()
        self.source_mean = source.mean
        self.target_mean = source.mean if kind == "none" else target.mean
        self.scale = _unit(source.std, target.std, per_feature, pooled=kind in ("none", "shift"))
        # Features that are constant in both clouds come back as they were.
        self.spread = np.where((source.std > 0) | (target.std > 0), self.scale, 0)
        stds = [_divide_in_place(moments.std.copy(), self.scale) for moments in (source, target)]
        self.axes: np.ndarray | None = None
        self.at_source = np.ones(len(self.scale))
        self.at_target = np.ones(len(self.scale))
        varies = (source.std > 0) & (target.std > 0)
        if kind in ("scale", "linear"):
            self.at_source[varies] = stds[0][varies] / stds[1][varies]
            self.at_source[(source.std == 0) & (target.std > 0)] = 0
        if kind != "none":
            self.at_target[(source.std > 0) & (target.std == 0)] = 0
        if kind == "linear" and source is not target and varies.any():
            self._turn(source, target, stds, varies)
        # Standard deviations of the normal source, or a root of its covariance.
        self.noise = stds[0]
        if kind == "linear" and source is target:
            self.noise = stds[0][:, None] * np.linalg.cholesky(source.correlation)
        self.target_rms_distance = float(np.sqrt(2 * np.square(stds[1]).sum()))

    def _turn(self, source: Moments, target: Moments, stds, varies: np.ndarray) -> None:
        """Take along what the two covariances say about the features that vary."""
        both = np.ix_(varies, varies)
        covariances = [
            std[varies, None] * moments.correlation[both] * std[varies]
            for std, moments in zip(stds, (source, target), strict=True)
        ]
        axes, stretch = _gaussian_map(*covariances)
        self.axes = np.eye(len(varies))
        self.axes[both] = axes
        self.at_source[varies] = 1 / stretch

    @property
    def name(self) -> str:
        """What the frame alone does, in words."""
        return NAMES[self.kind]

    @property
    def n_features(self) -> int:
        return len(self.scale)

    @property
    def drift(self) -> np.ndarray:
        """Velocity of the centre, in the data's units."""
        return self.target_mean - self.source_mean

    def centre(self, t: np.ndarray | float) -> np.ndarray:
        """Centre of the flow at time t, in the data's units."""
        return self.source_mean + np.multiply.outer(t, self.drift)

    def encode(self, X: np.ndarray, t: np.ndarray | float) -> np.ndarray:
        """Points of the flow at time t, from rows."""
        with np.errstate(over="ignore", invalid="ignore"):
            Z = self._turned(_divide_in_place(X - self.centre(t), self.scale))
            return self._turned_back(_divide_in_place(Z, self._stretch(t))).astype(X.dtype, copy=False)

    def decode(self, Z: np.ndarray, t: np.ndarray | float, dtype: np.dtype) -> np.ndarray:
        """Rows at time t, from points of the flow."""
        with np.errstate(over="ignore", invalid="ignore"):
            X = self._turned_back(self._turned(Z) * self._stretch(t)) * self.spread
            return (X + self.centre(t)).astype(dtype, copy=False)

    def draw_noise(self, n_samples: int, rng: np.random.RandomState) -> np.ndarray:
        """Points of the normal source."""
        noise = rng.standard_normal((n_samples, self.n_features))
        return noise * self.noise if self.noise.ndim == 1 else noise @ self.noise.T

    def velocity(self, Z: np.ndarray, V: np.ndarray, t: np.ndarray) -> np.ndarray:
        """dx/dt, from points of the flow, their velocities and times."""
        with np.errstate(over="ignore", invalid="ignore"):
            turned = self._turned(V) * self._stretch(t) + self._turned(Z) * (self.at_target - self.at_source)
            return self._turned_back(turned) * self.spread + self.drift

    def behind(self) -> Frame:
        """The frame of a flow that starts where this one ends."""
        frame = copy.copy(self)
        frame.source_mean, frame.at_source = self.target_mean, self.at_target
        return frame

    def _stretch(self, t: np.ndarray | float) -> np.ndarray:
        return np.multiply.outer(1 - np.asarray(t), self.at_source) + np.multiply.outer(t, self.at_target)

    def _turned(self, Z: np.ndarray) -> np.ndarray:
        return Z if self.axes is None else Z @ self.axes

    def _turned_back(self, Z: np.ndarray) -> np.ndarray:
        return Z if self.axes is None else Z @ self.axes.T


def find_frame(source: SampleRows | None, target: SampleRows, kind: str, *, per_feature: bool) -> Frame:
    """The frame of two samples, chosen if `kind` is "auto".

    Parameters
    ----------
    source : SampleRows or None
        None for a normal source.
    target : SampleRows
    kind : {"auto", "none", "shift", "scale", "linear"}
    per_feature : bool
        Whether each feature has a unit of its own.
    """
    if kind == "auto":
        kind = _choose(source, target, per_feature)
    samples = [target] if source is None else [source, target]
    moments = [moments_of(sample, with_correlation=kind == "linear") for sample in samples]
    return Frame(moments[0], moments[-1], kind=kind, per_feature=per_feature)


def _choose(source: SampleRows | None, target: SampleRows, per_feature: bool) -> str:
    """The kind of frame that brings held-out rows of the source nearest to those of the target.

    "linear", unless another one is better by more than a standard error over the folds.
    """
    n_features = target[:1].shape[1]
    if source is None or n_features > COVARIANCE_FEATURES:
        return "linear" if n_features <= COVARIANCE_FEATURES else "shift"
    rng = np.random.RandomState(0)
    clouds = [cloud[np.sort(rng.permutation(len(cloud))[:CHOICE_ROWS])] for cloud in (source, target)]
    if min(map(len, clouds)) < 2 * N_FOLDS:
        return "shift"
    folds = [_folds(cloud, rng) for cloud in clouds]
    distances = np.empty((N_FOLDS, len(KINDS)))
    for k in range(N_FOLDS):
        training, test = zip(
            *((cloud[fold != k], cloud[fold == k]) for cloud, fold in zip(clouds, folds, strict=True)),
            strict=True,
        )
        moments = [moments_of(cloud, with_correlation=True) for cloud in training]
        frames = [Frame(*moments, kind=kind, per_feature=per_feature) for kind in KINDS]
        # All kinds are measured in the units of one.
        distances[k] = [
            _distance(frames[-1].encode(frame.decode(frame.encode(test[0], 0.0), 1.0, float), 1.0), Z)
            for Z in [frames[-1].encode(test[1], 1.0)]
            for frame in frames
        ]
    gains = distances[:, -1:] - distances
    mean, error = gains.mean(axis=0), gains.std(axis=0, ddof=1) / np.sqrt(N_FOLDS)
    return KINDS[np.where(mean > error, mean, 0)[::-1].argmax() * -1 - 1]


def _folds(cloud: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Number of the fold of each row: neighbours are in different ones, so that all folds are alike."""
    std = cloud.std(axis=0)
    order = tree_order(np.divide(cloud, std, where=std > 0, out=np.zeros_like(cloud)))
    folds = np.empty(len(cloud), dtype=int)
    for start in range(0, len(cloud), N_FOLDS):
        group = order[start : start + N_FOLDS]
        folds[group] = rng.permutation(N_FOLDS)[: len(group)]
    return folds


def _distance(X: np.ndarray, Y: np.ndarray) -> float:
    """Energy distance less the part that all candidates share."""
    return 2 * cdist(X, Y).mean() - cdist(X, X).sum() / (len(X) * (len(X) - 1))


def _divide_in_place(deviations: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Deviations in a unit of each feature, zero where that is."""
    np.divide(deviations, unit, where=unit > 0, out=deviations)
    np.multiply(deviations, 0, where=unit <= 0, out=deviations)
    return deviations


class Moments(NamedTuple):
    """Mean, standard deviation and correlation of a sample.

    Attributes
    ----------
    mean, std : ndarray of shape (n_features,)
        In float64. The deviation is exactly zero for a constant column.
    correlation : ndarray of shape (n_features, n_features) or None
        Shrunk towards the identity after Ledoit and Wolf, from 10 000 rows at most.
    """

    mean: np.ndarray
    std: np.ndarray
    correlation: np.ndarray | None


def moments_of(cloud: SampleRows | np.ndarray, *, with_correlation: bool) -> Moments:
    """Moments of a sample, which is read in chunks."""
    n_rows = len(cloud)
    mean = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in chunks(cloud)) / n_rows
    largest = np.max([np.abs(chunk - mean).max(axis=0) for chunk in chunks(cloud)], axis=0)
    safe = np.where(largest > 0, largest, 1)
    square = sum(np.square((chunk - mean) / safe).sum(axis=0) for chunk in chunks(cloud))
    rounding = 10 * np.finfo(np.float64).eps * np.abs(mean)
    std = np.where(largest > rounding, safe * np.sqrt(square / n_rows), 0)
    if not with_correlation:
        return Moments(mean, std, None)
    n_used = min(COVARIANCE_ROWS, COVARIANCE_SIZE // len(mean))
    places = np.sort(np.random.RandomState(0).permutation(n_rows)[:n_used])
    return Moments(mean, std, _shrunk_correlation(_divide_in_place(cloud[places] - mean, std)))


def _shrunk_correlation(deviations: np.ndarray) -> np.ndarray:
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    std = np.sqrt(np.where(covariance.diagonal() > 0, covariance.diagonal(), 1))
    correlation = covariance / std / std[:, None]
    np.fill_diagonal(correlation, 1)
    return correlation


def _unit(source_std: np.ndarray, target_std: np.ndarray, per_feature: bool, *, pooled: bool) -> np.ndarray:
    """Unit of each feature: the target's deviation, or pooled the root of the mean of both variances."""
    if not pooled:
        source_std = np.where(target_std > 0, target_std, source_std)
        target_std = source_std
    # The larger one is taken out first: squares of extreme scales overflow.
    largest = np.maximum(source_std, target_std)
    if not per_feature:
        largest = np.full_like(largest, largest.max())
    relative = np.divide(
        [source_std, target_std], largest, where=largest > 0, out=np.zeros((2, largest.size))
    )
    variance = np.square(relative).mean(axis=0)
    if not per_feature:
        variance[:] = variance.mean()
    return np.sqrt(variance) * largest


def _gaussian_map(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axes and stretches of ``S^{-1/2} (S^{1/2} T S^{1/2})^{1/2} S^{-1/2}`` for covariances S and T."""
    variances, axes = np.linalg.eigh(source)
    std = np.sqrt(np.maximum(variances, variances.max() * 1e-12))
    root, inverse = (axes * std) @ axes.T, (axes / std) @ axes.T
    variances, axes = np.linalg.eigh(root @ target @ root)
    between = (axes * np.sqrt(np.maximum(variances, 0))) @ axes.T
    stretch, axes = np.linalg.eigh(inverse @ between @ inverse)
    return axes, np.maximum(stretch, stretch.max() * 1e-12)


def blur_in_units(blur, frame: Frame, *, auto_factor: float = 1.0):
    """Blur in the units of the flow.

    Parameters
    ----------
    blur : "auto", float or (float, float)
        As a fraction of the target's RMS pairwise distance.
    frame : Frame
    auto_factor : float, default=1.0
        What "auto" is multiplied by.
    """
    resolved = np.asarray(blur_fraction(blur, frame, auto_factor)) * (frame.target_rms_distance or 1.0)
    return float(resolved) if resolved.ndim == 0 else tuple(map(float, resolved))


def blur_fraction(blur, frame: Frame, auto_factor: float = 1.0):
    """Blur as a fraction of the target's RMS pairwise distance.

    "auto" is what measurements on data of 2, 3, 11 and 64 features gave.
    """
    if isinstance(blur, str):
        return auto_factor * min(0.025 * (frame.n_features / 2) ** 0.4, 0.15)
    blur_schedule(blur, 2)
    return np.asarray(blur, dtype=float)
