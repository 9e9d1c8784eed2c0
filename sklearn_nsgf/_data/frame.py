"""The frame of a flow: coordinates in which source and target already agree as far as is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sklearn_nsgf._data.charts import Charts
from sklearn_nsgf._data.moments import ClassMoments, Moments, check_scales, divide_in_place
from sklearn_nsgf._data.noise import (
    Noise,
    NoiseMixture,
    draw_each,
    normal_columns_of,
    root_and_factor,
)
from sklearn_nsgf.flow import blur_schedule

NAMES = {
    "none": "identity",
    "shift": "shift of the mean",
    "scale": "scaled shift",
    "linear": "linear map",
    "quantile": "map of quantiles",
}
KINDS = tuple(NAMES)
# Between features, of the source's deviation in units of the target's: one map stretches all of them.
LARGEST_RATIO = 1e6
# In units of the flow, beside which a target may be next to a point. The inverse of its square is a float32.
SMALLEST_BLUR = 1e-15


class Frame:
    r"""Between the data's coordinates and the flow's.

    A point z of the flow stands for ``x_t = centre_t + scale * (axes diag(w_t) axes^T z)`` at time t, with
    ``w_t = (1 - t) at_source + t at_target``. A point that does not move in the flow moves on a straight line
    in the data: by the linear map that takes mean and covariance of the source to those of the target, if the
    frame is "linear". That map is the optimal transport between two normal distributions [1]_, and the line
    its displacement interpolation. "scale" knows standard deviations alone, "shift" means alone.

    Some columns, or all if the frame is "quantile", are normal scores in place of values: x_t is then what
    `charts` make of this.

    Distances are measured in one unit for each feature, or one for all. A feature that is constant in the
    target comes back as that constant.

    Parameters
    ----------
    source, target : Moments
        Of rows with scores where there are charts. The same for a normal source.
    kind : {"none", "shift", "scale", "linear", "quantile"}
    per_feature : bool
        Whether each feature has a unit of its own.
    charts : Charts or None
    classes : ClassMoments or None
        Of the target, if each class has a normal source of its own, or each cluster a part of the source.

    Attributes
    ----------
    noises : list of Noise or NoiseMixture
        The source of a generation, or that of each class; empty with a source sample.

    References
    ----------
    .. [1] Dowson, Landau. The Fréchet distance between multivariate normal distributions. Journal of
       Multivariate Analysis 12(3), 1982.
    """

    def __init__(
        self,
        source: Moments,
        target: Moments,
        *,
        kind: str,
        per_feature: bool,
        charts: Charts | None = None,
        classes: ClassMoments | None = None,
    ) -> None:
        self.kind, self.charts = kind, charts
        self.source_collapsed, self.target_collapsed = not source.std.any(), not target.std.any()
        self.per_feature = per_feature
        self.source_mean = source.mean
        self.target_mean = source.mean if kind == "none" else target.mean
        self.scale = _unit(source.std, target.std, per_feature, pooled=kind in ("none", "shift"))
        # Features that are constant in both clouds come back as they were.
        self.spread = np.where((source.std > 0) | (target.std > 0), self.scale, 0)
        stds = [divide_in_place(moments.std.copy(), self.scale) for moments in (source, target)]
        check_scales(self.scale, self.drift, 2 * np.square(stds).sum())
        self.axes: np.ndarray | None = None
        self.at_source = np.ones(len(self.scale))
        self.at_target = np.ones(len(self.scale))
        varies = (source.std > 0) & (target.std > 0)
        if kind in ("scale", "linear", "quantile"):
            self.at_source[varies] = stds[0][varies] / stds[1][varies]
            self.at_source[(source.std == 0) & (target.std > 0)] = 0
        if kind != "none":
            self.at_target[(source.std > 0) & (target.std == 0)] = 0
        knows_correlations = kind in ("linear", "quantile") and source.correlation is not None
        ratios = self.at_source[varies]
        # The covariance of a source with larger ones is singular in float64.
        is_regular = varies.any() and 0 < ratios.max() <= LARGEST_RATIO * ratios.min()
        if knows_correlations and source is not target and is_regular:
            self._turn(source, target, stds, varies)
        self.noises = self._noises(target, stds[1], classes) if source is target else []
        self.target_rms_distance = float(np.sqrt(2 * np.square(stds[1]).sum()))

    def _turn(self, source: Moments, target: Moments, stds, varies: np.ndarray) -> None:
        """Take along what the two covariances say about the features that vary."""
        both = np.ix_(varies, varies)
        # The target's deviations are about one. Squares of the source's can be no floats, unless a power of
        # two is taken out.
        unit = math.ldexp(1.0, math.frexp(stds[0][varies].max())[1])
        covariances = [
            std[varies, None] * moments.correlation[both] * std[varies]
            for std, moments in ((stds[0] / unit, source), (stds[1], target))
        ]
        axes, stretch = _gaussian_map(*covariances)
        self.axes = np.eye(len(varies))
        self.axes[both] = axes
        self.at_source[varies] = unit / stretch

    def _noises(
        self, target: Moments, std: np.ndarray, classes: ClassMoments | None
    ) -> Sequence[Noise | NoiseMixture]:
        if classes is None:
            return [Noise(np.zeros(len(std)), std, *root_and_factor(target))]
        means = divide_in_place(classes.means - target.mean, self.scale)
        noises: list[Noise] = []
        for k, (mean, moments) in enumerate(zip(means, classes.moments, strict=True)):
            before = classes.moments[k - 1]
            is_shared = (
                k > 0 and before.correlation is moments.correlation and before.factor is moments.factor
            )
            shape = noises[-1][2:] if is_shared else root_and_factor(moments)
            noises.append(Noise(mean, divide_in_place(moments.std.copy(), self.scale), *shape))
        if classes.weights is None:
            return noises
        to_normal = None
        if self.charts is not None:
            columns = self.charts.columns
            to_normal = normal_columns_of(noises, classes.weights, columns, std[columns])
        return [NoiseMixture(noises, classes.weights, to_normal)]

    @property
    def name(self) -> str:
        """What the frame alone does, in words."""
        with_scores = self.charts is not None and self.kind != "quantile"
        return NAMES[self.kind] + (" with some columns as scores" if with_scores else "")

    @property
    def n_features(self) -> int:
        return len(self.scale)

    @property
    def n_clusters(self) -> int:
        """Of rows without labels, at which a generation starts."""
        starts_there = len(self.noises) == 1 and isinstance(self.noises[0], NoiseMixture)
        return len(self.noises[0].noises) if starts_there else 1

    @property
    def drift(self) -> np.ndarray:
        """Velocity of the centre, in the data's units."""
        return self.target_mean - self.source_mean

    def centre(self, t: np.ndarray | float) -> np.ndarray:
        """Centre of the flow at time t, in the data's units."""
        return self.source_mean + np.multiply.outer(t, self.drift)

    def encode(self, X: np.ndarray, t: np.ndarray | float) -> np.ndarray:
        """Points of the flow at time t, from rows."""
        U = X if self.charts is None else self.charts.encode(X, t)
        with np.errstate(over="ignore", invalid="ignore"):
            Z = self._turned(divide_in_place(U - self.centre(t), self.scale))
            return self._turned_back(divide_in_place(Z, self._stretch(t))).astype(X.dtype, copy=False)

    def decode(self, Z: np.ndarray, t: np.ndarray | float, dtype: np.dtype) -> np.ndarray:
        """Rows at time t, from points of the flow."""
        with np.errstate(over="ignore", invalid="ignore"):
            U = self._moved(Z, t)
            X = U if self.charts is None else self.charts.decode(U, t)
            return X.astype(dtype, copy=False)

    def noise_of(self, code: int | None) -> Noise | NoiseMixture:
        """The source of a class."""
        return self.noises[0 if code is None or len(self.noises) == 1 else code]

    def draw_noise(
        self, n_samples: int, rng: np.random.RandomState, codes: np.ndarray | None = None
    ) -> np.ndarray:
        """Points of the source of a generation, or of those of the classes with these indices."""
        if codes is None or len(self.noises) == 1:
            return self.noises[0].draw(n_samples, rng)
        return draw_each(self.noises, codes, rng)

    def velocity(self, Z: np.ndarray, V: np.ndarray, t: np.ndarray) -> np.ndarray:
        """dx/dt, from points of the flow, their velocities and times."""
        with np.errstate(over="ignore", invalid="ignore"):
            turned = self._turned(V) * self._stretch(t) + self._turned(Z) * (self.at_target - self.at_source)
            answer = self._turned_back(turned) * self.spread + self.drift
            return answer if self.charts is None else self.charts.velocity(self._moved(Z, t), answer, t)

    def _moved(self, Z: np.ndarray, t: np.ndarray | float) -> np.ndarray:
        """Rows at time t, with scores where there are charts."""
        return self._turned_back(self._turned(Z) * self._stretch(t)) * self.spread + self.centre(t)

    def _stretch(self, t: np.ndarray | float) -> np.ndarray:
        return np.multiply.outer(1 - np.asarray(t), self.at_source) + np.multiply.outer(t, self.at_target)

    def _turned(self, Z: np.ndarray) -> np.ndarray:
        return Z if self.axes is None else Z @ self.axes

    def _turned_back(self, Z: np.ndarray) -> np.ndarray:
        return Z if self.axes is None else Z @ self.axes.T


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


def blur_in_units(blur, frame: Frame):
    """Blur in the units of the flow.

    Parameters
    ----------
    blur : float or (float, float)
        As a fraction of the target's RMS pairwise distance.
    frame : Frame
    """
    blur_schedule(blur, 2)
    resolved = np.maximum(np.asarray(blur, dtype=float) * (frame.target_rms_distance or 1.0), SMALLEST_BLUR)
    return float(resolved) if resolved.ndim == 0 else tuple(map(float, resolved))
