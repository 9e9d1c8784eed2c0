import copy
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from clouds import two_clouds
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

from sklearn_nsgf import NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._data.layout import find_layout
from sklearn_nsgf._data.space import Space
from sklearn_nsgf._model.model import FlowModel
from sklearn_nsgf.inspection import LossCurveDisplay, TrajectoryDisplay, TransportDisplay

TINY = {"n_flows": 2, "flow_batch_size": 32, "hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0}
DISPLAYS = [TrajectoryDisplay, TransportDisplay]


@pytest.fixture(scope="module")
def clouds():
    return two_clouds(60, 50)


@pytest.fixture(scope="module")
def flow(clouds):
    return SinkhornFlowTransport(**TINY).fit(*clouds)


@pytest.fixture(scope="module")
def two_phases(clouds):
    options = {**TINY, "coupling_batch_size": 32, "n_couplings": 4, "transition": "predicted"}
    return NSGFPlusPlus(**options).fit(*clouds)


@pytest.fixture
def pyplot():
    pytest.importorskip("matplotlib").use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


class Picture(SinkhornFlowTransport):
    """An estimator that knows the layout of its images, and no more."""

    def __init__(self, sample_shape, image_shape=None, channel_axis=None):
        super().__init__(image_shape=image_shape, channel_axis=channel_axis)
        space = Space(find_layout(sample_shape, image_shape, channel_axis), None, None, None)
        self.model_ = FlowModel(space, None, [0], [None], "cpu")

    def integrate(self, X, *, labels=None, n_steps=None, solver=None, return_path=False):
        path = np.stack([X + share for share in np.linspace(0, 1, (n_steps or 3) + 1)])
        return path if return_path else path[-1]


def offsets(points):
    return np.asarray(points.get_offsets())


def shown(axes):
    return np.stack([[ax.images[0].get_array() for ax in row] for row in axes])


def test_trajectories_are_those_of_integrate(pyplot, flow, clouds):
    X = clouds[0][:7]
    display = TrajectoryDisplay.from_estimator(flow, X, n_steps=4, solver="heun")
    path = flow.integrate(X, n_steps=4, solver="heun", return_path=True)
    np.testing.assert_array_equal(display.path, path)
    np.testing.assert_array_equal(display.times, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal([line.get_xydata() for line in display.lines_], path.transpose(1, 0, 2))
    np.testing.assert_array_equal(offsets(display.start_points_), path[0])
    np.testing.assert_array_equal(offsets(display.end_points_), path[-1])
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("feature 0", "feature 1")
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["t = 0", "t = 1"]


@pytest.mark.parametrize("transition", ["direct", "predicted"])
def test_each_phase_has_half_of_the_time(pyplot, two_phases, clouds, transition):
    X = clouds[0][:3]
    if transition == "direct":
        two_phases = NSGFPlusPlus(**TINY, coupling_batch_size=32, n_couplings=4).fit(*clouds)
        assert list(LossCurveDisplay.from_estimator(two_phases).lines_) == ["NSGFPlusPlus"]
    display = TrajectoryDisplay.from_estimator(two_phases, X)
    np.testing.assert_allclose(display.times, [0, 0.25, *np.linspace(0.5, 1, 9)])
    display = TrajectoryDisplay.from_estimator(two_phases, X, n_steps=1)
    np.testing.assert_allclose(display.times, [0, 0.5, 1])
    np.testing.assert_array_equal(display.path, two_phases.integrate(X, n_steps=1, return_path=True))


def test_the_second_phase_may_be_missing(pyplot, two_phases, clouds):
    model = two_phases.model_
    est = copy.copy(two_phases)
    legs = model.legs[0], None
    est.model_ = FlowModel(model.space, model.source, model.n_seen, legs, model.device)
    assert est.straight_flow_ is None
    display = TrajectoryDisplay.from_estimator(est, clouds[0][:3])
    np.testing.assert_allclose(display.times, [0, 0.25, 0.5])
    assert list(LossCurveDisplay.from_estimator(est).lines_) == ["Sinkhorn flow"]


def test_transport_is_that_of_transform(pyplot, flow, clouds):
    X, y = clouds
    display = TransportDisplay.from_estimator(flow, X, y, n_arrows=20)
    moved = flow.transform(X)
    for points, expected in [
        (display.source_points_, X),
        (display.transported_points_, moved),
        (display.target_points_, y),
    ]:
        np.testing.assert_array_equal(offsets(points), expected)
    arrows = display.arrows_
    assert arrows.N == 20
    starts, ways = arrows.XY, np.column_stack([arrows.U, arrows.V])
    rows = [int(np.flatnonzero((X == start).all(axis=1))[0]) for start in starts]
    assert rows[0] == 0 and rows[-1] == len(X) - 1 and len(set(rows)) == 20
    np.testing.assert_allclose(ways, moved[rows] - X[rows])


@pytest.mark.parametrize("n_arrows, expected", [(0, 0), (1, 1), (1000, 60)])
def test_number_of_arrows(pyplot, flow, clouds, n_arrows, expected):
    display = TransportDisplay.from_estimator(flow, clouds[0], n_arrows=n_arrows)
    assert len(display.arrows_.XY) == expected
    display.figure_.canvas.draw()


@pytest.mark.parametrize("y", [None, np.zeros(60)])
def test_transport_without_a_target(pyplot, flow, clouds, y):
    display = TransportDisplay.from_estimator(flow, clouds[0], y)
    assert display.target_points_ is None
    assert len(display.ax_.collections) == 3


def test_transport_checks_the_target(flow, clouds):
    with pytest.raises(ValueError, match="y has 3 features and X has 2"):
        TransportDisplay.from_estimator(flow, clouds[0], np.zeros((5, 3)))


def test_points_of_a_table_with_categories(pyplot):
    """Columns of numbers are drawn, and others named."""
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=30), "b": rng.integers(2, size=30) == 1, "c": list("xyz" * 10)}
    table = pd.DataFrame(columns).astype({"c": "category"})
    est = SinkhornFlowTransport(n_flows=1, flow_batch_size=16, max_iter=0).fit(table, table)
    display = TransportDisplay.from_estimator(est, table, table)
    np.testing.assert_array_equal(offsets(display.source_points_), table[["a", "b"]].astype(float))
    with pytest.raises(ValueError, match=r"two features of numbers, and \['a', 'c'\] hold .* features="):
        TransportDisplay.from_estimator(est, table, features=("a", "c"))


def test_loss_curves_of_one_network(pyplot, flow):
    display = LossCurveDisplay.from_estimator(flow)
    line = display.lines_["SinkhornFlowTransport"]
    validation_line = display.validation_lines_["SinkhornFlowTransport"]
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, flow.n_iter_ + 1))
    np.testing.assert_array_equal(line.get_ydata(), flow.loss_curve_)
    np.testing.assert_array_equal(validation_line.get_ydata(), flow.validation_curve_)
    # Of few rows, before and after the training.
    np.testing.assert_array_equal(validation_line.get_xdata(), [0, flow.n_iter_])
    assert validation_line.axes is display.validation_ax_ is not display.ax_
    assert validation_line.get_color() == line.get_color()
    assert (line.get_linestyle(), validation_line.get_linestyle()) == ("-", "--")
    assert display.ax_.get_yscale() == "log"


def test_loss_curves_of_two_phases(pyplot, two_phases):
    display = LossCurveDisplay.from_estimator(two_phases, log_scale=False)
    for name, phase in {
        "Sinkhorn flow": two_phases.sinkhorn_flow_,
        "straight flow": two_phases.straight_flow_,
    }.items():
        np.testing.assert_array_equal(display.lines_[name].get_ydata(), phase.loss_curve_)
        np.testing.assert_array_equal(display.validation_lines_[name].get_ydata(), phase.validation_curve_)
        assert display.lines_[name].get_xdata()[-1] == phase.n_iter_
    assert display.ax_.get_yscale() == "linear"
    assert len(display.ax_.get_legend().get_texts()) == 4


def test_loss_curves_without_validation(pyplot, clouds):
    flow = SinkhornFlowTransport(**TINY, early_stopping=False).fit(*clouds)
    display = LossCurveDisplay.from_estimator(flow)
    assert len(display.lines_) == 1 and display.validation_lines_ == {}


@pytest.mark.parametrize("display", [*DISPLAYS, LossCurveDisplay])
def test_the_axes_given_are_drawn_in(pyplot, display, flow, clouds):
    figure, (_, ax) = pyplot.subplots(1, 2)
    arguments = [] if display is LossCurveDisplay else [clouds[0]]
    drawn = display.from_estimator(flow, *arguments, ax=ax)
    assert drawn.ax_ is ax and drawn.figure_ is figure
    assert pyplot.get_fignums() == [figure.number]
    assert drawn.plot() is drawn and drawn.ax_ is not ax


def test_styles_of_the_caller(pyplot, flow, clouds):
    """Also under the short names, which must not collide with the defaults."""
    X, _ = clouds
    display = TrajectoryDisplay.from_estimator(flow, X[:3], lw=2, c="red")
    assert {(line.get_linewidth(), line.get_color()) for line in display.lines_} == {(2, "red")}
    display = LossCurveDisplay.from_estimator(flow, ls=":", lw=3)
    assert display.lines_["SinkhornFlowTransport"].get_linestyle() == ":"
    assert display.validation_lines_["SinkhornFlowTransport"].get_linestyle() == "--"
    assert display.validation_lines_["SinkhornFlowTransport"].get_linewidth() == 3
    display = TransportDisplay.from_estimator(flow, X, scatter_kw={"s": 3}, arrow_kw={"color": "green"})
    assert display.source_points_.get_sizes() == display.transported_points_.get_sizes() == [3]
    np.testing.assert_allclose(display.arrows_.get_facecolor()[0, :3], [0, 128 / 255, 0])


@pytest.mark.parametrize("features, columns", [((2, 0), [2, 0]), (("warm", "cold"), [1, 0])])
def test_features_by_index_and_by_name(pyplot, features, columns):
    rng = np.random.default_rng(0)
    names = ["cold", "warm", "dry"]
    X, y = (pd.DataFrame(rng.normal(size=(40, 3)), columns=names) for _ in range(2))
    flow = SinkhornFlowTransport(**TINY).fit(X, y).set_output(transform="pandas")
    trajectories = TrajectoryDisplay.from_estimator(flow, X, features=features)
    transport = TransportDisplay.from_estimator(flow, X, y, features=features)
    moved = flow.transform(X).to_numpy()[:, columns]
    np.testing.assert_array_equal(offsets(trajectories.end_points_), moved)
    np.testing.assert_array_equal(offsets(transport.transported_points_), moved)
    np.testing.assert_array_equal(offsets(transport.target_points_), y.to_numpy()[:, columns])
    for display in (trajectories, transport):
        labels = [display.ax_.get_xlabel(), display.ax_.get_ylabel()]
        assert labels == [names[column] for column in columns]


@pytest.mark.parametrize("display", DISPLAYS)
@pytest.mark.parametrize(
    "features, message",
    [
        ((0, 2), "no feature 2: expected 0 to 1; there are no feature names"),
        ((0, -1), "no feature -1"),
        ((0, 0.5), "no feature 0.5"),
        ((True, False), "no feature True"),
        ((0, "warm"), "no feature 'warm'"),
        ((0, 1, 1), "must be a pair"),
        (1, "must be a pair"),
        ("ab", "must be a pair"),
    ],
)
def test_wrong_features(pyplot, display, flow, clouds, features, message):
    with pytest.raises(ValueError, match=message):
        display.from_estimator(flow, clouds[0], features=features)
    assert pyplot.get_fignums() == []


def test_names_are_told_where_one_is_wrong(pyplot):
    X = np.zeros((4, 2))
    with pytest.raises(ValueError, match=r"expected 0 to 1 or one of \['a', 'b'\]"):
        TransportDisplay(X, X, features=("a", "c"), feature_names=["a", "b"]).plot()
    with pytest.raises(ValueError, match="1 names for 2 features"):
        TransportDisplay(X, X, feature_names=["a"]).plot()


@pytest.mark.parametrize("display", DISPLAYS)
def test_one_feature_is_too_few(pyplot, display, clouds):
    X, y = (cloud[:, :1] for cloud in clouds)
    with pytest.raises(ValueError, match="two features, and the data has 1"):
        display.from_estimator(SinkhornFlowTransport(**TINY).fit(X, y), X)


def test_unfitted_estimators(clouds):
    for display in DISPLAYS:
        with pytest.raises(NotFittedError):
            display.from_estimator(SinkhornFlowTransport(), clouds[0])
    with pytest.raises(NotFittedError):
        LossCurveDisplay.from_estimator(NSGFPlusPlus())


def test_images_of_a_real_flow(pyplot):
    X, y = np.random.default_rng(0).uniform(size=(2, 12, 5, 5))
    flow = SinkhornFlowTransport(**{**TINY, "max_iter": 2}, early_stopping=False).fit(X, y)
    display = TrajectoryDisplay.from_estimator(flow, X[:3])
    path = flow.integrate(X[:3], return_path=True)
    np.testing.assert_array_equal(shown(display.axes_), np.moveaxis(path, 0, 1))
    display = TransportDisplay.from_estimator(flow, X, y)
    np.testing.assert_array_equal(shown(display.axes_), [X[:10], flow.transform(X)[:10]])
    assert TrajectoryDisplay.from_estimator(flow, X, n_steps=1).axes_.shape == (10, 2)
    display.figure_.canvas.draw()


@pytest.mark.parametrize(
    "sample_shape, options, to_picture",
    [
        ((5, 6), {}, lambda X: X),
        ((30,), {"image_shape": (5, 6)}, lambda X: X.reshape(-1, 5, 6)),
        ((5, 6, 1), {}, lambda X: X[..., 0]),
        ((1, 5, 6), {}, lambda X: X[:, 0]),
        ((5, 6, 3), {}, lambda X: X),
        ((3, 5, 6), {}, lambda X: X.transpose(0, 2, 3, 1)),
        ((3, 3, 3), {"channel_axis": 1}, lambda X: X.transpose(0, 2, 3, 1)),
        ((90,), {"image_shape": (3, 5, 6)}, lambda X: X.reshape(-1, 3, 5, 6).transpose(0, 2, 3, 1)),
        ((5, 6, 4), {}, lambda X: X),
    ],
)
def test_layouts_of_images(pyplot, sample_shape, options, to_picture):
    X = np.random.default_rng(0).uniform(size=(3, *sample_shape))
    flow = Picture(sample_shape, **options)
    display = TrajectoryDisplay.from_estimator(flow, X, n_steps=4)
    assert display.axes_.shape == (3, 5)
    times = [ax.get_xlabel() for ax in display.axes_[-1]]
    assert times == ["t = 0", "t = 0.25", "t = 0.5", "t = 0.75", "t = 1"]
    path = flow.integrate(X, n_steps=4, return_path=True)
    pictures = np.stack([to_picture(node) for node in path], axis=1)
    is_grey = pictures.ndim == 4
    # Grey values are clipped by the colour map.
    np.testing.assert_allclose(shown(display.axes_), pictures if is_grey else np.clip(pictures, 0, 1))
    display = TransportDisplay.from_estimator(flow, X[:2])
    assert display.axes_.shape == (2, 2)
    np.testing.assert_allclose(shown(display.axes_)[0], to_picture(X[:2]))
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["source", "transported"]


@pytest.mark.parametrize(
    "lowest, highest, expected",
    [(-0.1, 1.2, (0, 1)), (-3, 260, (0, 255)), (0, 16, (0, 16)), (-1.1, 0.9, (-1, 1)), (0, 0, (0, 1))],
)
def test_range_of_grey_values(pyplot, lowest, highest, expected):
    X = np.array([[[lowest, highest], [0, 0]]], dtype=float)
    for display in (TransportDisplay(X, X), TrajectoryDisplay(X[None], [0])):
        assert display.plot().axes_[0, 0].images[0].get_clim() == expected
    colours = np.repeat(X[..., None], 3, axis=-1)
    black, white = expected
    np.testing.assert_allclose(
        shown(TransportDisplay(colours, colours).plot().axes_)[0, 0],
        np.clip((colours[0] - black) / (white - black), 0, 1),
    )


def test_bytes_are_shown_as_bytes(pyplot):
    X = np.random.default_rng(0).integers(256, size=(2, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_allclose(shown(TransportDisplay(X, X).plot().axes_)[0], X / 255)


def test_images_within_the_axes_given(pyplot):
    figure, (_, ax) = pyplot.subplots(1, 2)
    X = np.zeros((2, 4, 4))
    display = TrajectoryDisplay(np.stack([X, X, X]), [0, 0.5, 1]).plot(ax, cmap="viridis")
    assert display.figure_ is figure and pyplot.get_fignums() == [figure.number]
    assert ax.child_axes == list(display.axes_.ravel())
    assert display.axes_[1, 2].images[0].get_cmap().name == "viridis"


def test_two_channels_are_no_picture(pyplot):
    X = np.zeros((3, 4, 4, 2))
    with pytest.raises(ValueError, match="1, 3 or 4 channels can be shown; got 2"):
        TransportDisplay(X, X).plot()


def test_matplotlib_is_needed_for_plot_alone():
    code = """
import sys
sys.modules["matplotlib"] = None
import numpy as np
from sklearn_nsgf.inspection import LossCurveDisplay, TrajectoryDisplay, TransportDisplay
X = np.zeros((3, 2))
for display in [LossCurveDisplay({}), TrajectoryDisplay(X[None], [0]), TransportDisplay(X, X)]:
    try:
        display.plot()
    except ImportError as error:
        expected = "needs matplotlib: pip install matplotlib"
        assert str(error) == f"{type(display).__name__}.plot {expected}", error
    else:
        raise AssertionError(display)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_a_conditional_flow_is_told_the_classes():
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(30, 2)), np.arange(30) % 2
    options = {"max_iter": 2, "n_flows": 1, "flow_batch_size": 16, "hidden_layer_sizes": (4,)}
    est = SinkhornFlowTransport(label_mode="condition", **options).fit(X, codes)
    display = TrajectoryDisplay.from_estimator(est, X, labels=codes)
    np.testing.assert_array_equal(display.path[-1], est.transform(X, labels=codes))
    display = TransportDisplay.from_estimator(est, X, labels=1)
    np.testing.assert_array_equal(display.X_transported, est.transform(X, labels=1))


def test_validation_losses_stand_at_their_steps_after_several_fits():
    """Found in review: those of the first fit were drawn over the second one."""
    X = np.random.default_rng(0).normal(size=(60, 2))
    options = {"n_flows": 1, "flow_batch_size": 16, "hidden_layer_sizes": (4,), "warm_start": True}
    est = SinkhornFlowTransport(max_iter=100, early_stopping=True, n_iter_no_change=99, **options).fit(
        X, X + 3
    )
    est.set_params(max_iter=50, early_stopping=False).fit(X, X + 3)
    display = LossCurveDisplay.from_estimator(est)
    steps, losses = display.curves["SinkhornFlowTransport"]
    assert list(steps) == [*range(2, 101, 2), *range(101, 151)]
    assert len(losses) == len(steps)
    steps, losses = display.validation_curves["SinkhornFlowTransport"]
    assert list(steps) == [0, 100]
    assert len(losses) == len(steps)


def test_a_loss_curve_is_of_a_flow():
    scaler = StandardScaler().fit([[0.0], [1.0]])
    with pytest.raises(TypeError, match="StandardScaler has no loss curve: expected a fitted flow"):
        LossCurveDisplay.from_estimator(scaler)
