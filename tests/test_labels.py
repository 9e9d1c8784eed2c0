"""Classes in the fit: `label_mode="condition"` and `label_mode="couple"`."""

import warnings

import numpy as np
import pytest

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._model import reservoir
from sklearn_nsgf.domains import stack_domains
from sklearn_nsgf.flow import class_probabilities
from sklearn_nsgf.networks import MLP, UNet

SMALL = {"max_iter": 300, "hidden_layer_sizes": (64, 64), "random_state": 0}
FLOWS = {"n_flows": 4, "flow_batch_size": 128}
COUPLINGS = {"n_couplings": 8, "coupling_batch_size": 128}
ESTIMATORS = {
    "sinkhorn": SinkhornFlowTransport(**SMALL, **FLOWS),
    "matching": FlowMatchingTransport(**SMALL, **COUPLINGS),
    "direct": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS),
    "predicted": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, transition="predicted"),
}
TINY = {"max_iter": 2, "hidden_layer_sizes": (4,), "n_flows": 1, "flow_batch_size": 16}
NAMES = np.array(["high", "low"])


def unequal_classes(seed=0):
    """Two clusters, of 80 and 20 % in the source and of 20 and 80 % in the target, 10 to the right."""
    rng = np.random.default_rng(seed)
    codes = [np.repeat([0, 1], counts) for counts in ([240, 60], [50, 200])]
    centres = np.array([[0.0, 3.0], [0.0, -3.0]])
    source, target = (centres[each] + 0.3 * rng.normal(size=(len(each), 2)) for each in codes)
    return source, np.add(target, [10, 0]), *codes


@pytest.fixture(params=ESTIMATORS)
def est(request):
    return ESTIMATORS[request.param].set_params(label_mode="ignore")


def stacked(names=False):
    source, target, *codes = unequal_classes()
    labels = [NAMES[each] for each in codes] if names else codes
    return stack_domains(source, target, *labels)


def test_coupled_classes_stay_together_whatever_their_shares(est):
    X, y, domain = stacked(names=True)
    moved = est.set_params(label_mode="couple").fit(X, y, sample_domain=domain).transform(X[domain > 0])
    stayed = np.sign(moved[:, 1]) == np.where(y[domain > 0] == "high", 1, -1)
    assert stayed.mean() > 0.97
    assert est.classes_.tolist() == ["high", "low"]


def test_without_labels_they_do_not():
    X, _, domain = stacked()
    moved = ESTIMATORS["sinkhorn"].set_params(label_mode="ignore").fit(X, sample_domain=domain)
    assert np.mean(moved.transform(X[domain > 0])[:240, 1] > 0) < 0.7


def test_unlabelled_rows_find_their_class_by_the_plan():
    """Balanced classes, a target without labels: the plan tells every row's class."""
    rng = np.random.default_rng(0)
    codes = np.arange(200) % 2
    clusters = np.array([[0.0, 3.0], [0.0, -3.0]])[codes] + 0.3 * rng.normal(size=(200, 2))
    X, y, domain = stack_domains(clusters, np.add(clusters[::-1], [10, 0]), codes)
    assert (y[domain < 0] == -1).all()
    est = ESTIMATORS["sinkhorn"].set_params(label_mode="couple").fit(X, y, sample_domain=domain)
    assert est.classes_.tolist() == [0, 1]
    moved = est.transform(clusters)
    assert np.mean(np.sign(moved[:, 1]) == np.sign(clusters[:, 1])) == 1
    np.testing.assert_allclose(moved.mean(axis=0), [10, 0], atol=0.3)


@pytest.mark.parametrize("placeholder", [-1, None, np.nan])
def test_strings_and_floats_have_unlabelled_rows_too(placeholder):
    """The fit is that of integers."""
    X, y, domain = stacked()
    source, gap = X[domain > 0], (domain < 0) & (np.arange(len(y)) % 3 > 0)
    est = SinkhornFlowTransport(**TINY, label_mode="couple", random_state=0)
    expected = est.fit(X, np.where(gap, -1, y), sample_domain=domain).transform(source)
    names = NAMES[y].astype(object)
    names[gap] = placeholder
    np.testing.assert_array_equal(est.fit(X, names, sample_domain=domain).transform(source), expected)
    assert est.classes_.tolist() == ["high", "low"]
    if placeholder is not None:
        floats = np.where(gap, placeholder, y)
        np.testing.assert_array_equal(est.fit(X, floats, sample_domain=domain).transform(source), expected)
    with pytest.raises(ValueError, match="all labels in y are -1"):
        est.fit(X, np.full(len(X), placeholder, dtype=object), sample_domain=domain)


def test_strings_of_one_sample_are_enough():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "bcd"], 20)
    X, y, domain = stack_domains(rng.normal(size=(40, 2)), rng.normal(size=(30, 2)), labels)
    est = SinkhornFlowTransport(**TINY, label_mode="couple").fit(X, y, sample_domain=domain)
    assert est.classes_.tolist() == ["a", "bcd"]
    with pytest.raises(ValueError, match="30 of 70 labels in y are -1"):
        est.set_params(label_mode="condition").fit(X, y, sample_domain=domain)


def test_class_probabilities_of_a_permutation_are_its_classes():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 3)).astype(np.float32)
    codes, order = rng.integers(3, size=40), rng.permutation(40)
    places = np.array([3, 1, 30])
    found = class_probabilities(rows, places, rows[order] + 2, codes, 3, blur=0.02)
    # Row j goes to the one that is the same but for the shift.
    expected = np.eye(3)[codes[np.argsort(order)[places]]]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_class_probabilities_leave_out_rows_without_a_class():
    rows = np.array([[0.0], [1.0]], dtype=np.float32)
    found = class_probabilities(rows, np.array([0, 1]), rows, np.array([1, -1]), 2, blur=1.0)
    np.testing.assert_allclose(found, [[0, 1], [0, 1]])


def test_conditional_generation(est):
    _, target, _, codes = unequal_classes()
    est.set_params(label_mode="condition").fit(target, NAMES[codes])
    for name, sign in {"high": 1, "low": -1}.items():
        drawn = est.sample(200, labels=name, random_state=0)
        assert np.mean(np.sign(drawn[:, 1]) == sign) > 0.97
    each = est.sample(4, labels=["high", "low", "low", "high"], random_state=0)
    assert np.sign(each[:, 1]).tolist() == [1, -1, -1, 1]
    # As often as in the fit, 20 to 80.
    assert np.mean(est.sample(500, random_state=0)[:, 1] > 0) == pytest.approx(0.2, abs=0.06)


def test_a_generation_starts_at_the_normal_distribution_of_the_class():
    """Without a network: mean and covariance of each class, and points that stay where they are."""
    _, target, _, codes = unequal_classes()
    est = FlowMatchingTransport(label_mode="condition", max_iter=0).fit(target, NAMES[codes])
    np.testing.assert_allclose(est.transform(target, labels=NAMES[codes]), target, atol=1e-6)
    for code, name in enumerate(NAMES):
        own, drawn = target[codes == code], est.sample(20_000, labels=name, random_state=0)
        np.testing.assert_allclose(drawn.mean(axis=0), own.mean(axis=0), atol=0.02)
        np.testing.assert_allclose(drawn.std(axis=0), own.std(axis=0), rtol=0.05)
    mixed = est.sample(20_000, labels=NAMES[np.arange(20_000) % 2], random_state=0)
    np.testing.assert_allclose(mixed[1::2].mean(axis=0), target[codes == 1].mean(axis=0), atol=0.02)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_generation_of_a_class_with_few_rows(early_stopping):
    """With folds, each of which finds the start of its own rows, and which keep it; and one row alone."""
    _, target, _, codes = unequal_classes()
    rows = np.flatnonzero(codes == 0)[:8].tolist() + np.flatnonzero(codes == 1)[:60].tolist() + [0]
    y = np.append(codes[rows[:-1]], 2)
    est = FlowMatchingTransport(label_mode="condition", early_stopping=early_stopping, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        est.fit(target[rows], y)
        start = FlowMatchingTransport(label_mode="condition", max_iter=0).fit(target[rows], y)
    for code, (sign, share) in enumerate([(1, 0.9), (-1, 0.9), (1, 0.6)]):
        drawn = est.sample(100, labels=code, random_state=0)
        if early_stopping:
            np.testing.assert_array_equal(drawn, start.sample(100, labels=code, random_state=0))
        else:
            assert np.mean(np.sign(drawn[:, 1]) == sign) > share
        assert drawn.std(axis=0).min() > 0.05


def test_conditional_transport_takes_the_labels(est):
    """Both classes start at one place and part: without the class nobody could tell them."""
    rng = np.random.default_rng(0)
    codes = np.arange(300) % 2
    source = 0.3 * rng.normal(size=(300, 2))
    target = np.array([[5.0, 3.0], [5.0, -3.0]])[codes] + 0.3 * rng.normal(size=(300, 2))
    X, y, domain = stack_domains(source, target, codes, codes)
    est.set_params(label_mode="condition").fit(X, y, sample_domain=domain)
    moved = est.transform(source, labels=codes)
    assert np.mean(np.sign(moved[:, 1]) == 1 - 2 * codes) > 0.97
    assert np.mean(est.transform(source, labels=1)[:, 1] < 0) > 0.97
    everything = est.transform(X, labels=y, sample_domain=domain)
    np.testing.assert_array_equal(everything[:300], moved)
    np.testing.assert_array_equal(everything[300:], target)
    assert est.velocity(source[:2], 0.2, labels=1).shape == (2, 2)
    assert np.sign(est.sample(2, labels=[1, 0], random_state=0)[:, 1]).tolist() == [-1, 1]
    assert est.score(X, y, sample_domain=domain) > -2


def test_a_condition_goes_back_too():
    _, target, _, codes = unequal_classes()
    est = ESTIMATORS["direct"].set_params(label_mode="condition").fit(target, codes)
    noise = est.inverse_transform(target, labels=codes)
    assert np.linalg.norm(est.transform(noise, labels=codes) - target, axis=1).mean() < 1


def test_fit_transform_uses_the_labels_of_the_fit():
    X, y, domain = stacked()
    est = ESTIMATORS["matching"].set_params(label_mode="condition")
    moved = est.fit_transform(X, y, sample_domain=domain)
    np.testing.assert_array_equal(moved, est.transform(X, labels=y, sample_domain=domain))


@pytest.mark.parametrize("mode", ["condition", "couple"])
@pytest.mark.parametrize("dtype", [int, float, str, object])
def test_labels_of_any_kind(mode, dtype):
    X, y, domain = stacked()
    labels = y.astype(str).astype(dtype) if dtype is object else y.astype(dtype)
    est = SinkhornFlowTransport(**TINY, label_mode=mode).fit(X, labels, sample_domain=domain)
    assert est.classes_.tolist() == np.unique(labels).tolist()


def test_tiny_classes():
    """One row of a class is enough."""
    rng = np.random.default_rng(0)
    codes = np.array([0] * 30 + [1])
    X, y, domain = stack_domains(rng.normal(size=(31, 2)), rng.normal(size=(31, 2)), codes, codes)
    for mode in ("condition", "couple"):
        est = NSGFPlusPlus(**TINY, n_couplings=2, label_mode=mode).fit(X, y, sample_domain=domain)
        assert np.isfinite(est.sample(5, random_state=0)).all()


@pytest.mark.parametrize(
    ("mode", "labels", "message"),
    [
        ("condition", None, "needs y with a class for each row of X"),
        ("couple", None, "needs y with a class for each row of X"),
        ("condition", np.linspace(0.1, 0.9, 550), "y is continuous. Cut continuous values"),
        ("couple", np.full(550, -1), "all labels in y are -1"),
        ("condition", np.arange(3), "3 entries for 550 rows"),
        ("couple", np.repeat([0, 1], [300, 250]), r"no rows of the classes \[1\]"),
        ("condition", np.repeat([0, 1], [300, 250]), r"no rows of the classes \[1\]"),
        ("condition", np.array(["a"] * 549 + [None], dtype=object), "y"),
        ("condition", np.array([1.0] * 549 + [np.nan]), "NaN"),
        ("condition", np.array(["a"] * 300 + [-1] * 250, dtype=object), "250 of 550 labels in y are -1"),
    ],
)
def test_wrong_labels_in_fit(mode, labels, message):
    X, _, domain = stacked()
    with pytest.raises((ValueError, TypeError), match=message):
        SinkhornFlowTransport(**TINY, label_mode=mode).fit(X, labels, sample_domain=domain)


def test_a_class_that_only_one_sample_has_is_fine_beside_unlabelled_rows():
    X, y, domain = stacked()
    y[-5:] = -1
    y[domain < 0] = np.where(y[domain < 0] == 0, 1, y[domain < 0])
    est = SinkhornFlowTransport(**TINY, label_mode="couple").fit(X, y, sample_domain=domain)
    assert est.classes_.tolist() == [0, 1]


def test_a_second_sample_is_no_labels():
    source, target, *_ = unequal_classes()
    for mode in ("condition", "couple"):
        with pytest.raises(ValueError, match="Use stack_domains"):
            SinkhornFlowTransport(**TINY, label_mode=mode).fit(source, target)


def test_couple_needs_two_samples():
    _, target, _, codes = unequal_classes()
    with pytest.raises(ValueError, match="For generation use label_mode='condition'"):
        SinkhornFlowTransport(**TINY, label_mode="couple").fit(target, codes)


def test_wrong_labels_afterwards():
    _, target, _, codes = unequal_classes()
    est = SinkhornFlowTransport(**TINY, label_mode="condition").fit(target, codes)
    with pytest.raises(ValueError, match=r"labels are missing: .* one of \[0, 1\]"):
        est.transform(target)
    with pytest.raises(ValueError, match=r"labels \[7\] are not among those of the first fit"):
        est.sample(3, labels=7)
    with pytest.raises(ValueError, match=r"one label, or one for each of the 3 points \(n_samples\)"):
        est.sample(3, labels=[0, 1])
    for mode in ("ignore", "couple"):
        X, y, domain = stacked()
        other = SinkhornFlowTransport(**TINY, label_mode=mode).fit(X, y, sample_domain=domain)
        with pytest.raises(ValueError, match="its network sees no class"):
            other.transform(X, labels=y)


def test_a_rare_class_can_be_drawn(monkeypatch):
    """Found in review: none of its rows were among those kept."""
    monkeypatch.setattr(reservoir, "MAX_ROWS", 50)
    rng = np.random.default_rng(0)
    codes = np.r_[1, 1, np.zeros(400, dtype=int)]
    X, y, domain = stack_domains(rng.normal(size=(402, 2)), rng.normal(size=(402, 2)), codes, codes)
    est = SinkhornFlowTransport(**TINY, label_mode="condition", random_state=0).fit(
        X, y, sample_domain=domain
    )
    assert est.sample(3, labels=1, random_state=0).shape == (3, 2)
    assert [len(rows) for rows in est.model_.source.rows] == [100, 2]
    assert est.model_.n_seen == [400, 2]


def test_target_rows_need_no_labels_to_stay():
    """Those of the target are what a classifier behind it has to predict."""
    X, y, domain = stacked()
    est = SinkhornFlowTransport(**TINY, label_mode="condition").fit(X, y, sample_domain=domain)
    is_target = domain < 0
    np.testing.assert_array_equal(est.transform(X[is_target], sample_domain=domain[is_target]), X[is_target])
    unknown = np.where(is_target, -1, y)
    expected = est.transform(X, labels=y, sample_domain=domain)
    np.testing.assert_array_equal(est.transform(X, labels=unknown, sample_domain=domain), expected)


def test_what_stays_is_a_copy():
    X, _, domain = stacked()
    est = SinkhornFlowTransport(**TINY).fit(X, sample_domain=domain)
    target = X[domain < 0]
    assert not np.shares_memory(est.transform(target, sample_domain=np.full(len(target), -1)), target)


def test_a_network_that_does_not_see_the_class_is_refused():
    rng = np.random.default_rng(0)
    images, codes = rng.normal(size=(20, 6, 6)), np.arange(20) % 2
    est = SinkhornFlowTransport(
        **TINY, label_mode="condition", network=lambda shape, n_classes: UNet(shape, n_channels=4)
    )
    with pytest.raises(ValueError, match="UNet takes classes y if it was made with n_classes"):
        est.fit(images, codes)


def test_labels_of_one_type():
    _, target, _, codes = unequal_classes()
    mixed = np.array([*NAMES[codes[1:]], 3], dtype=object)
    est = SinkhornFlowTransport(**TINY, label_mode="condition")
    with pytest.raises(ValueError, match=r"types \['int', 'str'\]: expected strings, or integers"):
        est.fit(target, mixed)
    est.fit(target, NAMES[codes].astype(object))
    with pytest.raises(ValueError, match="expected strings, or integers"):
        est.sample(2, labels=["low", None])


def test_tags_say_whether_labels_are_needed():
    for mode in ("ignore", "condition", "couple"):
        tags = SinkhornFlowTransport(label_mode=mode).__sklearn_tags__().target_tags
        assert tags.required == tags.one_d_labels == (mode != "ignore")


def test_conditional_images():
    rng = np.random.default_rng(0)
    codes = np.arange(24) % 2
    images = (100 * codes[:, None, None] + rng.integers(0, 100, size=(24, 6, 6))).astype(np.uint8)
    est = NSGFPlusPlus(**TINY, n_couplings=1, coupling_batch_size=16, label_mode="condition", random_state=0)
    drawn = est.fit(images, codes).sample(3, labels=[0, 1, 1], random_state=0)
    assert drawn.shape == (3, 6, 6)
    assert drawn.dtype == np.uint8
    assert est.model_.legs[0].network.embed_label.num_embeddings == 2


def test_a_factory_is_told_the_number_of_classes():
    calls = []

    def factory(event_shape, *n_classes):
        calls.append((event_shape, *n_classes))
        return MLP(*event_shape, (4,), *n_classes)

    _, target, _, codes = unequal_classes()
    options = {**TINY, "network": factory, "early_stopping": False}
    SinkhornFlowTransport(**options, label_mode="condition").fit(target, codes)
    SinkhornFlowTransport(**options).fit(target, codes)
    assert calls == [((2,), 2), ((2,),)]
    with pytest.raises(ValueError, match=r"class indices y below 2 .* network\(t, x, y\)"):
        SinkhornFlowTransport(**{**TINY, "network": MLP(2, (4,))}, label_mode="condition").fit(target, codes)
