"""Plots of a fitted flow: trajectories, transported points and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from sklearn_nsgf._data.check import check_samples, check_target
from sklearn_nsgf._types import Solver
from sklearn_nsgf.domains import is_target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.quiver import Quiver

__all__ = ["LossCurveDisplay", "TrajectoryDisplay", "TransportDisplay"]

# More pictures in a row or a column are too small to see.
MAX_PICTURES = 10
SOURCE_COLOR, TRANSPORTED_COLOR, TARGET_COLOR = "tab:blue", "tab:orange", "lightgrey"


class TrajectoryDisplay:
    """Paths of points from the source to the target.

    Rows are drawn in two of their features, a thin line for each, with its first and its last point.
    Images are drawn as a grid: a row for each of the first 10 and a column for each time.

    `from_estimator` makes the display of a fitted estimator.

    Parameters
    ----------
    path : ndarray of shape (n_nodes, n_samples, n_features) or images
        Points after every step. Images have the shape (n_nodes, n_samples, H, W) or
        (n_nodes, n_samples, H, W, C).
    times : array-like of shape (n_nodes,)
        Times of the nodes, from 0 (source) to 1 (target).
    features : (int or str, int or str), default=(0, 1)
        The two features to draw, by index or by name; not used for images.
    feature_names : array-like of shape (n_features,), default=None
        Names of the features; without them the axes are called "feature 0" and so on.

    Attributes
    ----------
    figure_ : Figure
        The figure drawn in.
    ax_ : Axes
        For rows, the axes drawn in.
    lines_ : list of Line2D
        For rows, the paths, one for each sample.
    start_points_, end_points_ : PathCollection
        For rows, the first and the last points.
    axes_ : ndarray of Axes, of shape (n_images, n_nodes)
        For images, the axes of the pictures.

    See Also
    --------
    TransportDisplay : Only where the points start and end, and the target.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf import SinkhornFlowTransport
    >>> from sklearn_nsgf.inspection import TrajectoryDisplay
    >>> rng = np.random.default_rng(0)
    >>> X_src, X_tgt = rng.normal(size=(100, 2)), rng.normal([5, -3], 1, size=(100, 2))
    >>> est = SinkhornFlowTransport(n_flows=2, flow_batch_size=64, max_iter=20, random_state=0)
    >>> path = est.fit(X_src, X_tgt).integrate(X_src[:30], return_path=True)
    >>> path.shape
    (6, 30, 2)
    >>> display = TrajectoryDisplay(path, times=np.linspace(0, 1, 6))
    >>> display.plot()  # doctest: +SKIP

    The same, in one call:

    >>> TrajectoryDisplay.from_estimator(est, X_src[:30])  # doctest: +SKIP
    """

    figure_: Figure
    ax_: Axes
    lines_: list[Line2D]
    start_points_: PathCollection
    end_points_: PathCollection
    axes_: NDArray[Any]

    def __init__(
        self,
        path: ArrayLike,
        times: Sequence[float] | NDArray[Any],
        *,
        features: tuple[int | str, int | str] = (0, 1),
        feature_names: Sequence[str] | NDArray[Any] | None = None,
    ) -> None:
        self.path = path
        self.times = times
        self.features = features
        self.feature_names = feature_names

    def plot(self, ax: Axes | None = None, **line_kw: Any) -> Self:
        """Draw the paths.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; images are laid out within it. None makes a new figure.
        **line_kw : dict
            Keyword arguments of `Axes.plot` for the lines; of `Axes.imshow` for images.

        Returns
        -------
        display : TrajectoryDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the data does not have the features, or images do not have 1, 3 or 4 channels.
        """
        matplotlib = _import_matplotlib(self)
        path = np.asarray(self.path)
        if path.ndim > 3:
            pictures = np.moveaxis(path[:, :MAX_PICTURES], 0, 1)
            self.figure_, self.axes_ = _show_pictures(
                matplotlib, pictures, _grey_range(path[-1]), ax, line_kw
            )
            for column, time in zip(self.axes_.T, self.times, strict=True):
                column[-1].set_xlabel(_time_label(time))
            return self
        columns, labels = _choose_features(self.features, path.shape[-1], self.feature_names)
        path = path[..., columns]
        style = {"color": "black", "linewidth": 0.5, "alpha": 0.4}
        style |= matplotlib.cbook.normalize_kwargs(line_kw, matplotlib.lines.Line2D)
        self.figure_, self.ax_ = _make_axes(matplotlib, ax)
        self.lines_ = self.ax_.plot(*path.transpose(2, 0, 1), **style)
        self.start_points_, self.end_points_ = (
            self.ax_.scatter(*path[node].T, s=8, color=color, label=_time_label(self.times[node]), zorder=3)
            for node, color in [(0, SOURCE_COLOR), (-1, TRANSPORTED_COLOR)]
        )
        self.ax_.set(xlabel=labels[0], ylabel=labels[1])
        self.ax_.legend()
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        n_steps: int | None = None,
        solver: Solver | None = None,
        features: tuple[int | str, int | str] = (0, 1),
        ax: Axes | None = None,
        **line_kw: Any,
    ) -> Self:
        """Transport points and draw their paths.

        Parameters
        ----------
        estimator : estimator
            A fitted flow of this package.
        X : array-like of shape (n_samples, n_features) or images
            Points of the source, few enough for a line each.
        labels : label or array-like of shape (n_samples,), default=None
            Class of each point, or one for all; for an estimator with `label_mode="condition"`.
        n_steps : int, default=None
            Number of steps, of `NSGFPlusPlus` in each phase; by default the estimator's own.
        solver : {"euler", "midpoint", "heun", "rk4"}, default=None
            By default the estimator's `solver`.
        features : (int or str, int or str), default=(0, 1)
            The two features to draw, by index or, if the estimator was fitted on a DataFrame, by name.
        ax : Axes, default=None
            Where to draw; None makes a new figure.
        **line_kw : dict
            Keyword arguments of `Axes.plot` for the lines; of `Axes.imshow` for images.

        Returns
        -------
        display : TrajectoryDisplay
        """
        check_is_fitted(estimator)
        layout = estimator.model_.space.layout
        path = estimator.integrate(X, labels=labels, n_steps=n_steps, solver=solver, return_path=True)
        display = cls(
            layout.to_pictures(path),
            _node_times(estimator, n_steps, len(path)),
            features=features,
            feature_names=getattr(estimator, "feature_names_in_", None),
        )
        return display.plot(ax, **line_kw)


class TransportDisplay:
    """Source points, where they are transported to, and the target.

    Rows are drawn in two of their features, with arrows from some of the source points to where they end.
    Images are drawn in two rows, the first 10 of the source above what became of them.

    `from_estimator` makes the display of a fitted estimator.

    Parameters
    ----------
    X_source : ndarray of shape (n_samples, n_features) or images
        Points of the source. Images have the shape (n_samples, H, W) or (n_samples, H, W, C).
    X_transported : ndarray of the shape of `X_source`
        The same points, transported.
    X_target : ndarray of shape (n_target, n_features), default=None
        Target sample, drawn faintly behind the points; images are not shown with it.
    features : (int or str, int or str), default=(0, 1)
        The two features to draw, by index or by name; not used for images.
    feature_names : array-like of shape (n_features,), default=None
        Names of the features; without them the axes are called "feature 0" and so on.

    Attributes
    ----------
    figure_ : Figure
        The figure drawn in.
    ax_ : Axes
        For rows, the axes drawn in.
    source_points_, transported_points_ : PathCollection
        For rows, the points before and after.
    target_points_ : PathCollection or None
        For rows, the target sample, if there is one.
    arrows_ : Quiver
        For rows, the arrows from source points to transported points.
    axes_ : ndarray of Axes, of shape (2, n_images)
        For images, the axes of the pictures.

    See Also
    --------
    TrajectoryDisplay : The way between the two.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf import SinkhornFlowTransport
    >>> from sklearn_nsgf.inspection import TransportDisplay
    >>> rng = np.random.default_rng(0)
    >>> X_src, X_tgt = rng.normal(size=(100, 2)), rng.normal([5, -3], 1, size=(100, 2))
    >>> est = SinkhornFlowTransport(n_flows=2, flow_batch_size=64, max_iter=20, random_state=0)
    >>> moved = est.fit(X_src, X_tgt).transform(X_src)
    >>> display = TransportDisplay(X_src, moved, X_tgt)
    >>> display.plot(n_arrows=50)  # doctest: +SKIP

    The same, in one call:

    >>> TransportDisplay.from_estimator(est, X_src, X_tgt, n_arrows=50)  # doctest: +SKIP
    """

    figure_: Figure
    ax_: Axes
    source_points_: PathCollection
    transported_points_: PathCollection
    target_points_: PathCollection | None
    arrows_: Quiver
    axes_: NDArray[Any]

    def __init__(
        self,
        X_source: ArrayLike,
        X_transported: ArrayLike,
        X_target: ArrayLike | None = None,
        *,
        features: tuple[int | str, int | str] = (0, 1),
        feature_names: Sequence[str] | NDArray[Any] | None = None,
    ) -> None:
        self.X_source = X_source
        self.X_transported = X_transported
        self.X_target = X_target
        self.features = features
        self.feature_names = feature_names

    def plot(
        self,
        ax: Axes | None = None,
        n_arrows: int = 100,
        scatter_kw: dict[str, Any] | None = None,
        arrow_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the points and the arrows.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; images are laid out within it. None makes a new figure.
        n_arrows : int, default=100
            Largest number of arrows; they start at rows evenly spaced in `X_source`.
        scatter_kw : dict, default=None
            Keyword arguments of `Axes.scatter`, for all points.
        arrow_kw : dict, default=None
            Keyword arguments of `Axes.quiver`.

        Returns
        -------
        display : TransportDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the data does not have the features, if these are no numbers, or if images do not have 1, 3 or
            4 channels.
        """
        matplotlib = _import_matplotlib(self)
        source, transported = np.asarray(self.X_source), np.asarray(self.X_transported)
        if source.ndim > 2:
            pictures = np.stack([source[:MAX_PICTURES], transported[:MAX_PICTURES]])
            self.figure_, self.axes_ = _show_pictures(matplotlib, pictures, _grey_range(transported), ax, {})
            for row, label in zip(self.axes_, ["source", "transported"], strict=True):
                row[0].set_ylabel(label)
            return self
        columns, labels = _choose_features(self.features, source.shape[1], self.feature_names)
        source, transported = (_points(each, columns, labels) for each in (source, transported))
        target = None if self.X_target is None else _points(np.asarray(self.X_target), columns, labels)
        self.figure_, self.ax_ = _make_axes(matplotlib, ax)
        self._scatter(matplotlib, source, transported, target, scatter_kw)
        chosen = np.linspace(0, len(source) - 1, min(n_arrows, len(source))).astype(int)
        style = {"color": "black", "alpha": 0.6, "width": 0.002, "headwidth": 5, "zorder": 3}
        style |= matplotlib.cbook.normalize_kwargs(arrow_kw, matplotlib.collections.Collection)
        self.arrows_ = self.ax_.quiver(
            *source[chosen].T,
            *(transported - source)[chosen].T,
            angles="xy",
            scale_units="xy",
            scale=1,
            **style,
        )
        self.ax_.set(xlabel=labels[0], ylabel=labels[1])
        self.ax_.legend()
        return self

    def _scatter(self, matplotlib, source, transported, target, scatter_kw):
        given = matplotlib.cbook.normalize_kwargs(scatter_kw, matplotlib.collections.Collection)

        def scatter(points, label, color):
            return self.ax_.scatter(*points.T, **{"s": 8, "color": color, "label": label, **given})

        # What is drawn later lies above.
        self.target_points_ = None
        if target is not None:
            self.target_points_ = scatter(target, "target", TARGET_COLOR)
        self.source_points_ = scatter(source, "source", SOURCE_COLOR)
        self.transported_points_ = scatter(transported, "transported", TRANSPORTED_COLOR)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        labels: ArrayLike | None = None,
        features: tuple[int | str, int | str] = (0, 1),
        ax: Axes | None = None,
        n_arrows: int = 100,
        scatter_kw: dict[str, Any] | None = None,
        arrow_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Transport points and draw them before and after.

        Parameters
        ----------
        estimator : estimator
            A fitted flow of this package.
        X : array-like of shape (n_samples, n_features) or images
            Points of the source.
        y : array-like of shape (n_target, n_features) or (n_samples,), default=None
            Target sample. One-dimensional labels are ignored.
        labels : label or array-like of shape (n_samples,), default=None
            Class of each point, or one for all; for an estimator with `label_mode="condition"`.
        features : (int or str, int or str), default=(0, 1)
            The two features to draw, by index or, if the estimator was fitted on a DataFrame, by name.
        ax : Axes, default=None
            Where to draw; None makes a new figure.
        n_arrows : int, default=100
            Largest number of arrows.
        scatter_kw : dict, default=None
            Keyword arguments of `Axes.scatter`, for all points.
        arrow_kw : dict, default=None
            Keyword arguments of `Axes.quiver`.

        Returns
        -------
        display : TransportDisplay
        """
        check_is_fitted(estimator)
        space = estimator.model_.space
        layout, X_target = space.layout, None
        if is_target(y):
            y = check_target(y, layout, space.table, ensure_min_samples=1)
            X_target = layout.to_pictures(y)
        display = cls(
            layout.to_pictures(check_samples(estimator, X, space)),
            layout.to_pictures(estimator.integrate(X, labels=labels)),
            X_target,
            features=features,
            feature_names=getattr(estimator, "feature_names_in_", None),
        )
        return display.plot(ax, n_arrows=n_arrows, scatter_kw=scatter_kw, arrow_kw=arrow_kw)


class LossCurveDisplay:
    """Training loss, and the energy distance of held-out rows if there were any.

    `from_estimator` makes the display of a fitted estimator.

    Parameters
    ----------
    curves : dict of str to (array-like, array-like)
        For each network its optimiser steps and the training losses at them.
    validation_curves : dict of str to (array-like, array-like), default=None
        The same for the energy distances of held-out rows, of some or all of the names in `curves`. They have
        an axis of their own, on the right.

    Attributes
    ----------
    figure_ : Figure
        The figure drawn in.
    ax_ : Axes
        The axes drawn in.
    lines_ : dict of str to Line2D
        The training losses.
    validation_ax_ : Axes or None
        The axis on the right, if there are validation curves.
    validation_lines_ : dict of str to Line2D
        The energy distances, dashed.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nsgf import SinkhornFlowTransport
    >>> from sklearn_nsgf.inspection import LossCurveDisplay
    >>> rng = np.random.default_rng(0)
    >>> X_src, X_tgt = rng.normal(size=(100, 2)), rng.normal([5, -3], 1, size=(100, 2))
    >>> est = SinkhornFlowTransport(n_flows=2, flow_batch_size=64, max_iter=20, random_state=0)
    >>> est = est.fit(X_src, X_tgt)
    >>> display = LossCurveDisplay({"Sinkhorn flow": (range(1, 21), est.loss_curve_)})
    >>> display.plot()  # doctest: +SKIP

    The same with the energy distances of held-out rows, in one call:

    >>> LossCurveDisplay.from_estimator(est)  # doctest: +SKIP
    """

    figure_: Figure
    ax_: Axes
    lines_: dict[str, Line2D]
    validation_ax_: Axes | None
    validation_lines_: dict[str, Line2D]

    def __init__(
        self,
        curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
        validation_curves: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ) -> None:
        self.curves = curves
        self.validation_curves = validation_curves

    def plot(self, ax: Axes | None = None, log_scale: bool = True, **line_kw: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None makes a new figure.
        log_scale : bool, default=True
            Whether the axis of the losses is logarithmic.
        **line_kw : dict
            Keyword arguments of `Axes.plot` for all lines.

        Returns
        -------
        display : LossCurveDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        matplotlib = _import_matplotlib(self)
        style = matplotlib.cbook.normalize_kwargs(line_kw, matplotlib.lines.Line2D)
        self.figure_, self.ax_ = _make_axes(matplotlib, ax)
        self.lines_, self.validation_lines_ = {}, {}
        validation_curves, self.validation_ax_ = self.validation_curves or {}, None
        if validation_curves:
            self.validation_ax_ = self.ax_.twinx()
            self.validation_ax_.set_ylabel("energy distance of held-out rows")
        for name, curve in self.curves.items():
            (line,) = self.ax_.plot(*curve, **{"label": name, **style})
            self.lines_[name] = line
            if name in validation_curves:
                dashed = {"label": f"{name}, held out", "color": line.get_color(), "linestyle": "--"}
                (validation_line,) = self.validation_ax_.plot(*validation_curves[name], **(style | dashed))
                self.validation_lines_[name] = validation_line
        if log_scale:
            self.ax_.set_yscale("log")
        self.ax_.set(xlabel="optimiser steps", ylabel="loss")
        self.ax_.legend(handles=[*self.lines_.values(), *self.validation_lines_.values()])
        return self

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Axes | None = None, log_scale: bool = True, **line_kw: Any
    ) -> Self:
        """Draw the losses of a fitted estimator, of each of its networks.

        Parameters
        ----------
        estimator : estimator
            A fitted flow of this package.
        ax : Axes, default=None
            Where to draw; None makes a new figure.
        log_scale : bool, default=True
            Whether the axis of the losses is logarithmic.
        **line_kw : dict
            Keyword arguments of `Axes.plot` for all lines.

        Returns
        -------
        display : LossCurveDisplay
        """
        check_is_fitted(estimator)
        name = type(estimator).__name__
        if not hasattr(estimator, "model_"):
            raise TypeError(f"{name} has no loss curve: expected a fitted flow of this package.")
        legs = estimator.model_.legs
        names = [name] if len(legs) == 1 else ["Sinkhorn flow", "straight flow"]
        curves, validation_curves = {}, {}
        for name, leg in zip(names, legs, strict=True):
            if leg is None:
                continue
            curves[name] = (leg.curves.loss_steps, leg.curves.loss)
            if leg.curves.validation:
                validation_curves[name] = (leg.curves.validation_steps, leg.curves.validation)
        return cls(curves, validation_curves).plot(ax, log_scale, **line_kw)


def _import_matplotlib(display):
    """Import matplotlib, which only `plot` needs."""
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            f"{type(display).__name__}.plot needs matplotlib: pip install matplotlib"
        ) from error
    return matplotlib


def _make_axes(matplotlib, ax, **figure_kw):
    """Figure and axes, new ones if `ax` is None."""
    if ax is None:
        _, ax = matplotlib.pyplot.subplots(**figure_kw)
    return ax.figure, ax


def _choose_features(features, n_features, feature_names):
    """Columns and labels of the two features to draw."""
    if n_features < 2:
        raise ValueError(f"Points are drawn in two features, and the data has {n_features}.")
    if feature_names is not None and len(feature_names) != n_features:
        raise ValueError(f"feature_names has {len(feature_names)} names for {n_features} features.")
    if np.ndim(features) != 1 or len(features) != 2:
        raise ValueError(f"features must be a pair of features, by index or by name; got {features!r}.")
    names = [] if feature_names is None else list(feature_names)
    columns = [names.index(feature) if feature in names else feature for feature in features]
    for column in columns:
        is_index = isinstance(column, Integral) and not isinstance(column, bool)
        if not is_index or not 0 <= column < n_features:
            known = f" or one of {names}" if names else "; there are no feature names"
            raise ValueError(f"There is no feature {column!r}: expected 0 to {n_features - 1}{known}.")
    return columns, [names[column] if names else f"feature {column}" for column in columns]


def _points(rows, columns, labels):
    """Two features, as numbers: other columns of a table can hold text."""
    try:
        return rows[:, columns].astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Points are drawn in two features of numbers, and {labels} hold {rows[0, columns].tolist()}: "
            "choose others with features=."
        ) from error


def _node_times(estimator, n_steps, n_nodes):
    """Times of the nodes of a path from 0 on, of which each phase of NSGF++ has a half."""
    if len(estimator.model_.phases) == 1:
        return np.linspace(0, 1, n_nodes)
    n_first = estimator.n_sinkhorn_steps if n_steps is None else n_steps
    # Nothing is left for the second half if `fit` was interrupted before it.
    second = np.linspace(0.5, 1, n_nodes - n_first)[1:]
    return np.concatenate([np.linspace(0, 0.5, n_first + 1), second])


def _time_label(time):
    return f"t = {time:.2g}"


def _grey_range(pictures):
    """Values that are shown black and white: of fractions, bytes, or else the range of the data.

    Transported pictures go somewhat beyond the range of the target.
    """
    lowest, highest = float(pictures.min()), float(pictures.max())
    white = 1.0 if highest <= 2 else 255.0 if highest > 127 else highest
    return -white if lowest < -white / 2 else 0.0, white


def _show_pictures(matplotlib, pictures, grey_range, ax, image_kw):
    """Draw a grid of pictures, of shape (n_rows, n_columns, H, W) or (n_rows, n_columns, H, W, C)."""
    black, white = grey_range
    if pictures.ndim == 5 and pictures.shape[-1] == 1:
        pictures = pictures[..., 0]
    elif pictures.ndim == 5:
        if pictures.shape[-1] not in (3, 4):
            raise ValueError(f"Only images of 1, 3 or 4 channels can be shown; got {pictures.shape[-1]}.")
        pictures = np.clip((pictures - black) / (white - black), 0, 1)
    n_rows, n_columns, height, width = pictures.shape[:4]
    figsize = 1.2 * n_columns, 1.2 * n_rows * height / width
    figure, ax = _make_axes(matplotlib, ax, figsize=figsize, layout="constrained")
    ax.set_axis_off()
    style = {"cmap": "gray", "vmin": black, "vmax": white, **image_kw}
    axes = np.empty((n_rows, n_columns), dtype=object)
    for row, column in np.ndindex(axes.shape):
        corner = column / n_columns, 1 - (row + 1) / n_rows
        axes[row, column] = ax.inset_axes([*corner, 0.94 / n_columns, 0.94 / n_rows], xticks=[], yticks=[])
        axes[row, column].imshow(pictures[row, column], **style)
    return figure, axes
