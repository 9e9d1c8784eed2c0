"""Images: every layout in, the same layout out."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._data.layout import find_layout
from sklearn_nsgf.networks import UNet

SMALL = {"max_iter": 2, "batch_size": 4, "random_state": 0}
SMALL_FLOW = {**SMALL, "n_flows": 1, "flow_batch_size": 8}
SMALL_COUPLING = {**SMALL, "n_couplings": 1, "coupling_batch_size": 8}


def tiny_unet(image_shape):
    return UNet(image_shape, n_channels=4, channel_multipliers=(1, 2))


ESTIMATORS = [
    SinkhornFlowTransport(**SMALL_FLOW, network=tiny_unet),
    FlowMatchingTransport(**SMALL_COUPLING, network=tiny_unet),
    NSGFPlusPlus(**SMALL_FLOW, n_couplings=1, network=tiny_unet),
    NSGFPlusPlus(**SMALL_FLOW, n_couplings=1, network=tiny_unet, transition="predicted"),
]


def images(*shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, size=shape)
    return values.astype(dtype) if dtype == np.uint8 else (values / 255).astype(dtype)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda est: f"{type(est).__name__}")
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (1, 7, 5), (3, 8, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_the_layout_and_the_dtype_come_back(estimator, shape, dtype):
    source, target = images(20, *shape, dtype=dtype), images(15, *shape, dtype=dtype, seed=1)
    est = estimator.fit(source, target)
    for answer in (est.transform(source[:3]), est.sample(3, random_state=0)):
        assert answer.shape == (3, *shape)
        assert answer.dtype == dtype
    floats = np.float64 if dtype == np.float64 else np.float32
    path = est.integrate(source[:3], return_path=True)
    assert path.shape[1:] == (3, *shape)
    assert path.dtype == est.integrate(source[:3], t_end=0.4).dtype == floats
    np.testing.assert_allclose(path[0], source[:3], rtol=0, atol=2e-5 if dtype != np.float64 else 1e-12)
    velocity = est.velocity(source[:3], 0.2)
    assert velocity.shape == (3, *shape)
    assert velocity.dtype == floats
    assert np.isfinite(est.score(source, target))


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_all_layouts_are_one_problem(dtype):
    first = images(20, 3, 6, 5, dtype=dtype)
    last = np.moveaxis(first, 1, -1)
    expected = SinkhornFlowTransport(**SMALL_FLOW, network=tiny_unet).fit(first).transform(first)
    for layout in (
        {"X": last},
        {"X": last.reshape(20, -1), "image_shape": (6, 5, 3)},
        {"X": first.reshape(20, -1), "image_shape": (3, 6, 5)},
        {"X": first.reshape(20, -1), "image_shape": (3, 6, 5), "channel_axis": 1},
    ):
        X = layout.pop("X")
        est = SinkhornFlowTransport(**SMALL_FLOW, network=tiny_unet, **layout).fit(X)
        answer = est.transform(X)
        assert answer.shape == X.shape
        rows_first = (
            expected
            if layout.get("image_shape") != (6, 5, 3) and X.ndim == 2
            else np.moveaxis(expected, 1, -1)
        )
        np.testing.assert_allclose(answer, rows_first.reshape(X.shape), rtol=0, atol=1e-6)


def test_generated_images_stay_in_range():
    X = np.where(images(40, 6, 6) > 200, 255, 0).astype(np.uint8)
    est = FlowMatchingTransport(**SMALL_COUPLING, network=tiny_unet).fit(X)
    sample = est.sample(50, random_state=0)
    assert sample.dtype == np.uint8
    as_floats = FlowMatchingTransport(**SMALL_COUPLING, network=tiny_unet).fit(X.astype(np.float32))
    rounded = np.clip(np.rint(as_floats.sample(50, random_state=0)), 0, 255)
    np.testing.assert_array_equal(sample, rounded)
    assert as_floats.sample(50, random_state=0).min() < 0


def test_grey_values_are_for_images_only():
    """Noise, and a target of numbers, would be cut off by uint8."""
    grey, numbers = images(30, 6, 6), np.random.default_rng(0).normal(size=(30, 6, 6))
    from_noise = FlowMatchingTransport(**SMALL_COUPLING, network=tiny_unet).fit(grey)
    assert from_noise.transform(grey).dtype == np.uint8
    latent = from_noise.inverse_transform(grey)
    assert latent.dtype == np.float32
    assert not np.array_equal(latent, np.rint(latent))
    to_numbers = FlowMatchingTransport(**SMALL_COUPLING, network=tiny_unet).fit(grey, numbers)
    assert to_numbers.transform(grey).dtype == np.float32
    assert to_numbers.inverse_transform(grey).dtype == np.uint8
    assert to_numbers.inverse_transform(numbers).dtype == np.float64
    as_floats = to_numbers.score(grey.astype(np.float32), numbers)
    assert to_numbers.score(grey, numbers) == pytest.approx(as_floats)


def test_pixels_that_never_change_stay():
    X = images(40, 6, 6)
    X[:, 0], X[:, 1] = 0, 255
    for est in ESTIMATORS[1:3]:
        sample = est.fit(X).sample(20, random_state=0)
        assert (sample[:, 0] == 0).all()
        assert (sample[:, 1] == 255).all()


def test_the_features_of_an_image_are_its_numbers():
    est = SinkhornFlowTransport(**SMALL_FLOW, network=tiny_unet).fit(images(20, 6, 5, 3))
    assert est.n_features_in_ == 90


def test_grey_values_of_rows_are_numbers():
    X = images(20, 6)
    est = SinkhornFlowTransport(**SMALL_FLOW, hidden_layer_sizes=(4,)).fit(X)
    assert est.transform(X).dtype == np.float64
    rows = SinkhornFlowTransport(**SMALL_FLOW, network=tiny_unet, image_shape=(2, 3)).fit(X)
    assert rows.transform(X).dtype == np.uint8


def test_images_have_one_scale():
    est = SinkhornFlowTransport(**SMALL_FLOW, network=tiny_unet).fit(images(20, 6, 6))
    assert np.ptp(est.model_.space.frame.scale) == 0


def test_the_default_network_is_a_unet():
    est = FlowMatchingTransport(**SMALL_COUPLING).fit(images(20, 5, 5))
    assert isinstance(est.network_, UNet)


@pytest.mark.parametrize(
    ("sample_shape", "image_shape", "channel_axis", "expected"),
    [
        ((5,), None, None, None),
        ((28, 28), None, None, (1, 28, 28)),
        ((28, 28, 3), None, None, (3, 28, 28)),
        ((3, 28, 28), None, None, (3, 28, 28)),
        ((3, 28, 3), None, -1, (3, 3, 28)),
        ((3, 28, 3), None, 1, (3, 28, 3)),
        ((28, 30, 9), None, 3, (9, 28, 30)),
        ((64,), (8, 8), None, (1, 8, 8)),
        ((192,), (8, 8, 3), None, (3, 8, 8)),
        ((192,), [3, 8, 8], None, (3, 8, 8)),
        ((28, 3), (28, 3), None, (1, 28, 3)),
    ],
)
def test_layouts(sample_shape, image_shape, channel_axis, expected):
    layout = find_layout(sample_shape, image_shape, channel_axis)
    assert layout.image_shape == expected
    X = np.random.default_rng(0).normal(size=(4, *sample_shape))
    np.testing.assert_array_equal(layout.to_samples(layout.to_rows(X)), X)


@pytest.mark.parametrize(
    ("sample_shape", "image_shape", "channel_axis", "message"),
    [
        ((28, 3), None, None, "one colour image"),
        ((3, 4, 3), None, None, "Pass channel_axis=-1"),
        ((28, 28, 28), None, None, "Pass channel_axis=-1"),
        ((28, 28, 3), None, 2, "Pass channel_axis=-1"),
        ((28, 28), None, -1, "no axis of channels"),
        ((5,), None, 1, "needs images"),
        ((65,), (8, 8), None, "does not fit"),
        ((8, 8), (8, 9), None, "does not fit"),
        ((16,), (2, 2, 2, 2), None, "does not fit"),
        ((2, 8, 8, 3), None, None, "5 dimensions"),
        ((64,), (8.9, 8.2), None, "positive integers"),
        ((64,), (-8, -8), None, "positive integers"),
        ((64,), ("8", "8"), None, "positive integers"),
    ],
)
def test_ambiguous_layouts_say_what_to_pass(sample_shape, image_shape, channel_axis, message):
    with pytest.raises(ValueError, match=message):
        find_layout(sample_shape, image_shape, channel_axis)


@pytest.fixture(scope="module")
def fitted():
    return SinkhornFlowTransport(**SMALL_FLOW, network=tiny_unet).fit(images(20, 6, 5, 3))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (images(4, 6, 5), "samples of shape"),
        (images(4, 6, 5, 1), "samples of shape"),
        (images(4, 5, 6, 3), "samples of shape"),
        (images(4, 90), "samples of shape"),
        (images(6, 5, 3), "samples of shape"),
        (np.full((4, 6, 5, 3), np.nan), "NaN"),
        (images(0, 6, 5, 3), "0 sample"),
        (images(4, 6, 5, 3) + 1j, "[Cc]omplex"),
    ],
)
def test_images_of_another_shape(fitted, bad, message):
    for call in (fitted.transform, fitted.inverse_transform, lambda X: fitted.velocity(X, 0.5), fitted.score):
        with pytest.raises(ValueError, match=message):
            call(bad)
    with pytest.raises(ValueError, match=rf"{message}|must have the same features"):
        SinkhornFlowTransport(**SMALL_FLOW).fit(images(20, 6, 5, 3), bad)


def test_a_network_for_other_images():
    with pytest.raises(ValueError, match=r"network must map .* \(n, 3, 6, 5\)"):
        SinkhornFlowTransport(**SMALL_FLOW, network=UNet((1, 6, 5), n_channels=4)).fit(images(20, 6, 5, 3))


def test_a_search_over_images():
    search = GridSearchCV(
        SinkhornFlowTransport(**SMALL_FLOW, network=tiny_unet),
        {"blur": [0.1, 0.5]},
        cv=2,
        error_score="raise",
    )
    assert search.fit(images(24, 6, 5, 3)).best_params_["blur"] in (0.1, 0.5)
    source, target = images(24, 6, 5), images(24, 6, 5, seed=1)
    assert search.fit(source, target).transform(source).shape == source.shape


def test_volumes_are_told_to_be_rows():
    """As many voxels each way could be channels of an image, and five dimensions are none."""
    for shape in [(4, 16, 16, 16), (4, 3, 8, 8, 8)]:
        with pytest.raises(ValueError, match=r"Pass volumes.* as rows, X.reshape\(len\(X\), -1\)"):
            SinkhornFlowTransport().fit(np.zeros(shape))
