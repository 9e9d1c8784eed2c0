"""Files, copies, parts of the data, and data larger than the memory."""

import copy
import io
import json
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from clouds import two_clouds
from sklearn.base import clone

from sklearn_nsgf import (
    FlowMatchingTransport,
    NSGFPlusPlus,
    SinkhornFlowTransport,
    __version__,
    _base,
    _transport,
)
from sklearn_nsgf._learning import learn
from sklearn_nsgf._model import reservoir
from sklearn_nsgf.flow import SinkhornFlows
from sklearn_nsgf.metrics import energy_distance
from sklearn_nsgf.networks import MLP, UNet

SMALL = {"max_iter": 4, "hidden_layer_sizes": (8,), "random_state": 0}
FLOWS = {"n_flows": 2, "flow_batch_size": 32}
COUPLINGS = {"n_couplings": 2, "coupling_batch_size": 32}
ESTIMATORS = {
    "sinkhorn": SinkhornFlowTransport(**SMALL, **FLOWS),
    "matching": FlowMatchingTransport(**SMALL, **COUPLINGS),
    "direct": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS),
    "predicted": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, transition="predicted"),
}


def small_network(event_shape, n_classes=0):
    return MLP(*event_shape, (4,), n_classes)


def tiny_network(event_shape):
    return UNet(event_shape, n_channels=4, channel_multipliers=(1,), attention_levels=())


@pytest.fixture(params=ESTIMATORS)
def est(request):
    return clone(ESTIMATORS[request.param])


def through_joblib(est):
    file = io.BytesIO()
    joblib.dump(est, file)
    file.seek(0)
    return joblib.load(file)


def through_skops(est):
    skops = pytest.importorskip("skops.io")
    data = skops.dumps(est)
    return skops.loads(data, trusted=skops.get_untrusted_types(data=data))


WAYS = {
    "pickle": lambda est: pickle.loads(pickle.dumps(est)),
    "joblib": through_joblib,
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "skops": through_skops,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_afterwards(est, way):
    source, target = two_clouds(60, 50)
    est.fit(source, target)
    again = WAYS[way](est)
    np.testing.assert_array_equal(again.transform(source), est.transform(source))
    np.testing.assert_array_equal(again.sample(5, random_state=0), est.sample(5, random_state=0))
    assert again.get_params() == est.get_params()
    assert again.set_params(warm_start=True).fit(source, target).n_iter_ == 2 * est.n_iter_


@pytest.mark.parametrize("way", WAYS)
def test_images_and_classes_too(way):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, size=(24, 6, 6)).astype(np.uint8)
    est = clone(ESTIMATORS["direct"]).set_params(label_mode="condition", max_iter=2, random_state=0)
    est.fit(images, np.array(["a", "b"])[np.arange(24) % 2])
    again = WAYS[way](est)
    expected = est.sample(4, labels="b", random_state=0)
    np.testing.assert_array_equal(again.sample(4, labels="b", random_state=0), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_factory_makes_the_network_again(way):
    source, target = two_clouds(60, 50)
    est = clone(ESTIMATORS["sinkhorn"]).set_params(network=small_network).fit(source, target)
    # What the parameters say since then does not matter.
    est.set_params(network=None)
    np.testing.assert_array_equal(WAYS[way](est).transform(source), est.transform(source))


def test_unfitted_estimators_too(est):
    for name, way in WAYS.items():
        assert way(est).get_params() == est.get_params(), name


def test_a_file_holds_no_torch():
    """So that a file from a machine with a GPU opens on one without, and skops knows what it is."""
    source, target = two_clouds(60, 50)
    est = clone(ESTIMATORS["predicted"]).set_params(device="auto").fit(source, target)
    assert b"torch" not in pickle.dumps(est).replace(b"sklearn_nsgf", b"")


def test_skops_trusts_our_classes_only(est):
    skops = pytest.importorskip("skops.io")
    est.fit(*two_clouds(60, 50))
    unknown = skops.get_untrusted_types(data=skops.dumps(est))
    assert unknown
    assert all(name.startswith("sklearn_nsgf.") for name in unknown)


def test_a_skops_file_runs_no_code(tmp_path):
    """A file that names a function to call is refused, and the function not called."""
    skops = pytest.importorskip("skops.io")
    exceptions = pytest.importorskip("skops.io.exceptions")
    est = clone(ESTIMATORS["sinkhorn"]).set_params(network=small_network).fit(*two_clouds(60, 50))
    data = skops.dumps(est)
    trusted = [name for name in skops.get_untrusted_types(data=data) if name.startswith("sklearn_nsgf.")]
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        schema = file.read("schema.json").decode()
        others = {name: file.read(name) for name in file.namelist() if name != "schema.json"}
    evil = schema.replace(f'"{small_network.__module__}"', '"os"').replace('"small_network"', '"system"')
    assert evil != schema
    json.loads(evil)
    forged = tmp_path / "forged.skops"
    with zipfile.ZipFile(forged, "w") as file:
        file.writestr("schema.json", evil)
        for name, content in others.items():
            file.writestr(name, content)
    assert any("system" in name for name in skops.get_untrusted_types(file=forged))
    with pytest.raises(exceptions.UntrustedTypesFoundException, match="system"):
        skops.load(forged, trusted=trusted)


def test_a_file_of_another_version_warns():
    est = clone(ESTIMATORS["direct"]).fit(*two_clouds(60, 50))
    data = pickle.dumps(est).replace(__version__.encode(), b"0.0.9.dev0")
    assert len(__version__) == len("0.0.9.dev0")
    with pytest.warns(UserWarning, match=r"was saved with sklearn-nsgf 0\.0\.9\.dev0") as record:
        pickle.loads(data)
    assert record[0].filename == __file__


def test_partial_fit_sees_all_of_its_parts():
    """Two parts of a target that lie apart: after the second one the first is still there."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(400, 2))
    target = np.concatenate([rng.normal([6, 3], 0.3, size=(200, 2)), rng.normal([6, -3], 0.3, size=(200, 2))])
    order = rng.permutation(400)
    options = {"n_flows": 8, "flow_batch_size": 128, "hidden_layer_sizes": (64, 64), "max_iter": 300}
    est = SinkhornFlowTransport(**options, random_state=0)
    for k in range(4):
        est.partial_fit(source[k * 100 : (k + 1) * 100], target[order[k * 100 : (k + 1) * 100]])
    moved = est.transform(rng.normal(size=(400, 2)))
    assert energy_distance(moved, target) < 0.1
    (kept,) = est.model_.replay[1].rows
    assert len(kept) == 400


def test_partial_fit_uses_flows_beyond_those_held(monkeypatch):
    """As `fit` does: six flows, of which the pool holds two at a time."""
    made = []
    simulate = SinkhornFlows.__call__

    def counted(self, seeds):
        made.append(len(seeds))
        return simulate(self, seeds)

    monkeypatch.setattr(SinkhornFlows, "__call__", counted)
    options = {**SMALL, "n_flows": 6, "flow_batch_size": 500, "pool_size": 2, "early_stopping": False}
    est = SinkhornFlowTransport(**{**options, "max_iter": 20})
    for _ in range(2):
        made.clear()
        est.partial_fit(*two_clouds())
        assert sum(made) == 6


def test_later_parts_start_where_the_network_now_is(monkeypatch):
    """Not where it was before: all starts of the last straight pool, with a network that hardly learns."""
    pools = []
    make = learn.make_pool

    def kept(*arguments, **options):
        pools.append(make(*arguments, **options))
        return pools[-1]

    monkeypatch.setattr(learn, "make_pool", kept)
    est = clone(ESTIMATORS["direct"]).set_params(early_stopping=False, max_iter=30)
    source, target = (cloud.astype(np.float32) for cloud in two_clouds(60, 50))
    est.partial_fit(source[:30], target[:30])
    est.set_params(learning_rate=1e-12).partial_fit(source[30:], target[30:])
    starts = np.unique(pools[-1].blocks[: pools[-1].n_held, :, 0].flatten(0, 1).numpy(), axis=0)
    ends = est.model_.encode(est.integrate(source, t_end=0.5), 0.5)
    distances = np.linalg.norm(starts[:, None] - ends, axis=2).min(axis=1)
    assert len(starts) > 30  # of both parts
    assert distances.max() < 1e-5


def test_the_first_partial_fit_is_a_fit(est):
    source, target = two_clouds(60, 50)
    expected = clone(est).fit(source, target).transform(source)
    np.testing.assert_array_equal(est.partial_fit(source, target).transform(source), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_goes_on_as_the_estimator_would(est, way):
    source, target = two_clouds(60, 50)
    again = WAYS[way](est.partial_fit(source[:40], target[:40]))
    expected = est.partial_fit(source[40:], target[40:]).transform(source)
    np.testing.assert_array_equal(again.partial_fit(source[40:], target[40:]).transform(source), expected)


def test_a_part_that_fails_leaves_what_there_was(est):
    """Found in review: rows of the part that failed were drawn from afterwards."""
    source, target = two_clouds(60, 50)
    expected = est.partial_fit(source, target).sample(5, random_state=0)
    other = {**est.get_params(), "learning_rate": 1e30}
    with pytest.raises(FloatingPointError):
        est.set_params(**other).partial_fit(source + 50, target)
    np.testing.assert_array_equal(est.sample(5, random_state=0), expected)


class Stops:
    """Raises at the n-th call of a function of the package."""

    def __init__(self, function, n_calls, error):
        self.function, self.n_left, self.error = function, n_calls, error

    def __call__(self, *arguments, **options):
        self.n_left -= 1
        if self.n_left < 0:
            raise self.error
        return self.function(*arguments, **options)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), RuntimeError()], ids=repr)
@pytest.mark.parametrize("n_calls", range(3))
def test_a_fit_that_fails_leaves_the_old_one_whole(est, n_calls, error, monkeypatch):
    """Wherever it stops: in the checks, in a pool, in the first or the second training."""
    source, target = two_clouds(60, 50)
    frames = [pd.DataFrame(cloud, columns=["a", "b"]) for cloud in (source, target)]
    est.fit(*frames)
    before = {name: getattr(est, name) for name in ("model_", "n_features_in_", "n_iter_", "device_")}
    expected = est.transform(frames[0])
    with pytest.raises(ValueError, match="NaN"):
        est.fit(np.full((50, 3), np.nan))
    monkeypatch.setattr(learn, "make_pool", Stops(learn.make_pool, n_calls, error))
    other = np.random.default_rng(0).normal(size=(50, 3))
    try:
        est.fit(other, other + 1)
    except type(error):
        assert all(getattr(est, name) is value for name, value in before.items())
        assert list(est.feature_names_in_) == ["a", "b"]
        np.testing.assert_array_equal(est.transform(frames[0]), expected)
    except UserWarning:
        # Ctrl-C in the second phase: the new first one is kept.
        assert isinstance(error, KeyboardInterrupt)
        assert est.n_features_in_ == 3


def test_classes_go_with_a_fit_that_ignores_them():
    _, target = two_clouds(60, 50)
    est = clone(ESTIMATORS["sinkhorn"]).set_params(label_mode="condition").fit(target, np.arange(50) % 2)
    assert list(est.classes_) == [0, 1]
    est.set_params(label_mode="ignore").fit(target)
    assert not hasattr(est, "classes_")


def test_other_steps_in_a_later_part():
    source, target = two_clouds(60, 50)
    est = clone(ESTIMATORS["sinkhorn"]).partial_fit(source, target).set_params(n_steps=8)
    est.partial_fit(source, target)
    assert est.integrate(source, return_path=True).shape == (9, 60, 2)


def test_labels_mean_what_they_meant_in_the_fit(est):
    _, target = two_clouds(60, 50)
    codes = np.arange(50) % 2
    est.set_params(label_mode="condition").fit(target, codes)
    expected = est.transform(target, labels=codes)
    est.set_params(label_mode="ignore")
    np.testing.assert_array_equal(est.transform(target, labels=codes), expected)
    with pytest.raises(ValueError, match=r"label_mode='ignore' was 'condition' in the first fit"):
        est.partial_fit(target)


def test_minus_one_stays_the_class_that_it_was():
    """Of "condition", whatever the parameter says later."""
    _, target = two_clouds(60, 50)
    labels = np.where(np.arange(50) % 2, 1, -1)
    est = clone(ESTIMATORS["sinkhorn"]).set_params(label_mode="condition").fit(target, labels)
    expected = est.transform(target, labels=labels)
    np.testing.assert_array_equal(
        est.set_params(label_mode="couple").transform(target, labels=labels), expected
    )


def test_parts_have_to_be_alike(est):
    source, target = two_clouds(60, 50)
    est.partial_fit(source, target)
    with pytest.raises(ValueError, match="pass X and y to all calls, or X alone"):
        est.partial_fit(target)
    with pytest.raises(ValueError, match="features"):
        est.partial_fit(source[:, :1], target[:, :1])


def test_a_class_that_comes_later_is_an_error():
    _, target = two_clouds(60, 50)
    labels = np.arange(50) % 2
    est = clone(ESTIMATORS["sinkhorn"]).set_params(label_mode="condition").partial_fit(target, labels)
    est.partial_fit(target, np.zeros(50, dtype=int))
    with pytest.raises(ValueError, match=r"labels \[2\] are not among those of the first fit"):
        est.partial_fit(target, 2 * labels)


def test_sample_draws_from_all_parts():
    est = clone(ESTIMATORS["matching"])
    rng = np.random.default_rng(0)
    for shift in (0, 50):
        source = rng.normal(shift, 1, size=(100, 1))
        est.partial_fit(source, source)
    (kept,) = est.model_.source.rows
    assert len(kept) == 200
    assert np.sum(kept > 25) == 100


def test_sample_keeps_a_bounded_number_of_rows(monkeypatch):
    monkeypatch.setattr(reservoir, "MAX_ROWS", 100)
    est = clone(ESTIMATORS["matching"])
    rng = np.random.default_rng(0)
    for k in range(4):
        source = rng.normal(10 * k, 0.1, size=(150, 1))
        est.partial_fit(source, source)
        (kept,) = est.model_.source.rows
        assert len(kept) == 100
    counts = np.bincount(np.rint(kept.ravel() / 10).astype(int), minlength=4)
    assert (counts > 10).all()


MEMMAP = """
import resource, sys
import numpy as np
from sklearn_nsgf import {name}

path, n_rows, n_columns = sys.argv[1], {n_rows}, {n_columns}
X = np.memmap(path, dtype={dtype!r}, mode="r", shape=(n_rows, n_columns))
d = np.where(np.arange(n_rows) % 2, 1, -1)
# Linear algebra keeps buffers of its own, which its first use takes.
np.linalg.cholesky(np.linalg.eigh(np.eye(256))[1] @ np.eye(256))
# What the process may have in memory of its own; maps of a file do not count.
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
limit = used + X.nbytes // 2
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
est = {name}(**{params!r}).{method}({arguments})
print(est.sample(3, random_state=0).shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
@pytest.mark.parametrize(
    ("name", "dtype", "arguments", "params"),
    [
        ("SinkhornFlowTransport", "float32", "X", {"early_stopping": False}),
        ("NSGFPlusPlus", "float32", "X, sample_domain=d", {"early_stopping": True}),
        ("NSGFPlusPlus", "float64", "X[: n_rows // 2], X[n_rows // 2 :]", {}),
        ("FlowMatchingTransport", "uint8", "X", {"image_shape": (8, 8, 4), "network": "tiny"}),
        ("FlowMatchingTransport", "float16", "X[: n_rows // 2], X[n_rows // 2 :]", {"frame": "linear"}),
        ("SinkhornFlowTransport", "int16", "X", {"frame": "linear"}),
    ],
)
def test_data_on_a_disk_is_not_copied(tmp_path, name, dtype, arguments, params):
    """Half of the file's size is all the memory that a fit may take."""
    n_columns, n_bytes = 256, 3 * 2**27
    n_rows = n_bytes // (n_columns * np.dtype(dtype).itemsize)
    path = tmp_path / "X.dat"
    file = np.memmap(path, dtype=dtype, mode="w+", shape=(n_rows, n_columns))
    rng, n_at_once = np.random.default_rng(0), 2**12
    for start in range(0, n_rows, n_at_once):
        size = (min(n_at_once, n_rows - start), n_columns)
        file[start : start + n_at_once] = rng.uniform(0, 255, size=size).astype(dtype)
    file.flush()
    del file
    known = {**SMALL, **FLOWS, **COUPLINGS, "n_jobs": 1, "pool_size": 1}
    options = {key: value for key, value in known.items() if key in ESTIMATORS_BY_NAME[name]().get_params()}
    options = {**options, **params}
    script = MEMMAP.format(
        name=name,
        n_rows=n_rows,
        n_columns=n_columns,
        dtype=dtype,
        params=options,
        method="fit",
        arguments=arguments,
    )
    script = script.replace("'network': 'tiny'", "'network': tiny").replace(
        "\npath,",
        "\ndef tiny(event_shape):\n    from sklearn_nsgf.networks import UNet\n"
        "    return UNet(event_shape, n_channels=4, channel_multipliers=(1,), attention_levels=())\n\npath,",
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(3, 256)"


@pytest.mark.parametrize("dtype", ["float16", "int8", "int64", "uint8", "bool"])
def test_maps_of_any_numbers_are_read_as_arrays_are(tmp_path, dtype):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2 if dtype == "bool" else 50, size=(60, 2)).astype(dtype)
    maps = [np.memmap(tmp_path / name, dtype=dtype, mode="w+", shape=X.shape) for name in "xy"]
    maps[0][:], maps[1][:] = X, X[::-1] if dtype == "bool" else X + 2
    arrays = list(map(np.array, maps))
    mapped, inside = (clone(ESTIMATORS["matching"]).fit(*each) for each in (maps, arrays))
    for _ in range(2):
        np.testing.assert_array_equal(mapped.transform(X), inside.transform(X))
        assert mapped.sample(3).dtype == np.float64
        mapped.partial_fit(*maps), inside.partial_fit(*arrays)
    maps[0].flush()


def test_rows_that_training_cannot_see_are_left_out(monkeypatch):
    """Of 1 000 rows 40 are taken, one of each 25, and in `partial_fit` they stand for all of them."""
    monkeypatch.setattr(_base, "MOST_ROWS", 40)
    est = clone(ESTIMATORS["matching"]).set_params(batch_size=8, max_iter=2)
    X = np.arange(1000.0).reshape(-1, 1)
    est.partial_fit(X, X + 1)
    assert est.model_.n_seen == [1000]
    (kept,) = est.model_.source.rows
    np.testing.assert_array_equal(np.sort(kept.ravel()) // 25, np.arange(40))
    assert est.partial_fit(X[:30], X[:30] + 1).model_.n_seen == [1030]


def test_training_sees_all_rows_it_has_steps_for(monkeypatch):
    monkeypatch.setattr(_base, "MOST_ROWS", 40)
    est = clone(ESTIMATORS["matching"]).set_params(batch_size=50, max_iter=2)
    X = np.arange(100.0).reshape(-1, 1)
    (kept,) = est.fit(X, X + 1).model_.source.rows
    np.testing.assert_array_equal(np.sort(kept.ravel()), X.ravel())


def chunks(X, size=7):
    return (X[start : start + size] for start in range(0, len(X), size))


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "uint8"])
def test_chunks_are_joined(dtype, tmp_path, monkeypatch):
    """They give what the whole gives, and the file is gone at once."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rng = np.random.default_rng(0)
    X, Y = (rng.integers(0, 50, size=(60, 6, 6)).astype(dtype) for _ in range(2))
    whole, parts = (clone(ESTIMATORS["matching"]).set_params(network=tiny_network) for _ in range(2))
    moved = parts.fit_transform(chunks(X), chunks(Y))
    np.testing.assert_array_equal(moved, whole.fit(X, Y).transform(X))
    parts.partial_fit(chunks(X), chunks(Y))
    np.testing.assert_array_equal(parts.transform(X), whole.partial_fit(X, Y).transform(X))
    assert not list(tmp_path.iterdir())


def test_chunks_of_frames(tmp_path):
    X = pd.DataFrame({"a": np.arange(50), "b": np.arange(50) / 7})
    X.to_csv(tmp_path / "X.csv", index=False)
    est = clone(ESTIMATORS["matching"]).fit(pd.read_csv(tmp_path / "X.csv", chunksize=8), X + 1)
    assert est.feature_names_in_.tolist() == ["a", "b"]
    np.testing.assert_allclose(est.transform(X), clone(est).fit(X * 1.0, X + 1.0).transform(X))


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ([], ValueError, "without any rows"),
        ([np.ones((3, 2)), np.ones((3, 4))], ValueError, r"like the first.*\('n', 2\).*\(3, 4\)"),
        ([np.ones((3, 2)), np.ones((3, 2), int)], ValueError, "int64"),
        ([np.ones((3, 2)), np.full((3, 2), np.nan)], ValueError, "X contains NaN"),
        ([[[1.0, 2.0]]], TypeError, "an iterator of builtins.list"),
        ([np.array([["u"]])], TypeError, "<U1"),
        ([pd.DataFrame({"a": [1.0]}), pd.DataFrame({"b": [1.0]})], ValueError, r"columns \['b'\]"),
        ([pd.DataFrame({"a": ["u"]})], ValueError, "could not convert"),
        ([pl.DataFrame({"a": [1.0]})], TypeError, "polars"),
    ],
)
def test_wrong_chunks(parts, error, match):
    with pytest.raises(error, match=match):
        clone(ESTIMATORS["matching"]).fit(iter(parts))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_is_told(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "wb", buffering=0))
    with pytest.raises(OSError, match="No space left") as caught:
        clone(ESTIMATORS["matching"]).fit(chunks(np.ones((50, 2))))
    assert "chunks of X" in caught.value.__notes__[0]


def test_a_map_with_nan_is_refused(tmp_path):
    X = np.memmap(tmp_path / "x", dtype="float16", mode="w+", shape=(20_000, 2))
    X[-1, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        clone(ESTIMATORS["matching"]).fit(X)


def test_transform_writes_into_another_array(tmp_path, monkeypatch):
    monkeypatch.setattr(_transport, "_PART_SIZE", 24)
    X = np.random.default_rng(0).normal(size=(50, 2))
    est = clone(ESTIMATORS["matching"]).fit(X, X + 3)
    out = np.memmap(tmp_path / "out", dtype=np.float32, mode="w+", shape=X.shape)
    assert est.transform(X, out=out) is out
    np.testing.assert_allclose(out, est.transform(X), rtol=1e-6)
    domain = np.where(np.arange(50) % 3, 1, -1)
    expected = est.transform(X, sample_domain=domain)
    assert est.transform(X, sample_domain=domain, out=X) is X
    np.testing.assert_array_equal(X, expected)


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.empty((3, 2)), "of the same shape"),
        ([[0.0, 0.0]], "a list"),
        (np.empty((50, 2), int), "int64"),
        (np.empty((50, 2), complex), "complex128"),
        (np.broadcast_to(0.0, (50, 2)), "read-only"),
    ],
)
def test_an_array_that_cannot_hold_the_answer_is_refused(out, error):
    X = np.random.default_rng(0).normal(size=(50, 2))
    est = clone(ESTIMATORS["matching"]).fit(X, X + 3)
    with pytest.raises(ValueError, match=error):
        est.transform(X, out=out)


ESTIMATORS_BY_NAME = {
    each.__name__: each for each in (SinkhornFlowTransport, FlowMatchingTransport, NSGFPlusPlus)
}
