"""Answers of a GPU are those of the CPU. Without a GPU: SKLEARN_NSGF_TEST_DEVICE=cpu runs what can be run."""

import gc
import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from clouds import two_clouds
from sklearn.base import clone
from sklearn.datasets import load_digits

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.flow import (
    ArraySampler,
    Couplings,
    SinkhornFlows,
    _plan,
    couple,
    particle_flow,
    sinkhorn_divergence,
    sinkhorn_potentials,
    sinkhorn_velocity,
)
from sklearn_nsgf.metrics import energy_distance
from sklearn_nsgf.networks import MLP, UNet

DEVICE = os.environ.get("SKLEARN_NSGF_TEST_DEVICE", "cuda")
ON_A_GPU = DEVICE.startswith("cuda")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(ON_A_GPU and not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
]
needs_a_gpu = pytest.mark.skipif(not ON_A_GPU, reason="there is no limit to the CPU's memory")

SMALL = {"max_iter": 300, "hidden_layer_sizes": (64, 64), "random_state": 0, "n_jobs": 1}
FLOWS = {"n_flows": 4, "flow_batch_size": 128}
COUPLINGS = {"n_couplings": 8, "coupling_batch_size": 128}


def small_unet(event_shape):
    return UNet(event_shape, n_channels=8)


ESTIMATORS = {
    "sinkhorn": SinkhornFlowTransport(**SMALL, **FLOWS),
    "matching": FlowMatchingTransport(**SMALL, **COUPLINGS),
    "direct": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS),
    "predicted": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, transition="predicted"),
}
SOURCE, TARGET = (each.astype(np.float32) for each in two_clouds())
NEW, NEW_TARGET = (each.astype(np.float32) for each in two_clouds(seed=1))
IMAGES = load_digits().images.astype(np.float32)
IMAGE_ESTIMATOR = FlowMatchingTransport(
    network=small_unet, max_iter=100, batch_size=64, **COUPLINGS, random_state=0, n_jobs=1
)


def assert_rounded(found, expected, n_roundings):
    """Whether two tensors of about one are so many roundings apart, at most."""
    tolerance = n_roundings * torch.finfo(expected.dtype).eps
    torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance)


# With their points in another order such problems, twelve of each, differ by up to 170 roundings on a CPU, in
# float32 and in float64, after as many rounds. A tolerance below 1e-4 is solved in float64.
SOLVER_ROUNDINGS = 2000


def clouds(batch, n, m, d, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*batch, n, d, generator=generator, dtype=torch.float64)
    y = 0.7 * torch.randn(*batch, m, d, generator=generator, dtype=torch.float64) + 1
    return x.to(dtype), y.to(dtype)


def assert_solved_alike(x, y, **options):
    """All that the solver can be asked, from a cold start."""
    for solve in (sinkhorn_potentials, sinkhorn_velocity, sinkhorn_divergence):
        expected, found = solve(x, y, **options), solve(x.to(DEVICE), y.to(DEVICE), **options)
        assert found[0].device.type == torch.device(DEVICE).type
        assert found.n_iters == expected.n_iters
        assert found.converged.all()
        for name in {"f", "g", "v", "value"} & set(expected._fields):
            assert_rounded(getattr(found, name), getattr(expected, name), SOLVER_ROUNDINGS)


@pytest.mark.parametrize(
    ("dtype", "tol"),
    [(torch.float32, 1e-3), (torch.float32, 1e-5), (torch.float64, 1e-3), (torch.float64, 1e-10)],
)
@pytest.mark.parametrize(
    ("batch", "n", "m", "d", "blur"),
    [((), 256, 200, 2, 0.2), ((), 300, 200, 50, 2.0), ((3,), 100, 120, 2, 0.2)],
)
@pytest.mark.parametrize("is_stored", [True, False])
def test_the_solver(dtype, tol, batch, n, m, d, blur, is_stored, monkeypatch):
    if not is_stored:
        monkeypatch.setattr(_plan, "_STORED_SIZE", dict.fromkeys(_plan._STORED_SIZE, 0))
        monkeypatch.setattr(_plan, "_BLOCK_SIZE", dict.fromkeys(_plan._BLOCK_SIZE, 2**13))
    x, y = clouds(batch, n, m, d, dtype)
    options = {"blur": blur, "tol": tol, "max_iter": 5000}
    assert_solved_alike(x, y, **options)
    expected, found = (
        particle_flow(x.to(device), y.to(device), n_steps=3, **options) for device in ("cpu", DEVICE)
    )
    assert_rounded(found.x, expected.x, SOLVER_ROUNDINGS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_solver_from_a_coarse_start(dtype):
    """Of problems with more than 4096 points on both sides."""
    assert_solved_alike(*clouds((), 4200, 4100, 2, dtype), blur=0.5, tol=1e-2)


@pytest.mark.parametrize("coupling", ["independent", "exact", "sinkhorn"])
def test_couplings_are_the_same(coupling):
    """They are found on the CPU."""
    x, y = torch.from_numpy(SOURCE[:128]), torch.from_numpy(TARGET[:100])
    pairs = [
        couple(x.to(device), y.to(device), coupling, np.random.default_rng(0), blur=0.5)
        for device in ("cpu", DEVICE)
    ]
    for found, expected in zip(*pairs, strict=True):
        assert torch.equal(found, expected)
    seeds = np.random.SeedSequence(0).spawn(3)
    samplers = ArraySampler(SOURCE), ArraySampler(TARGET)
    paths = [
        Couplings(*samplers, coupling=coupling, n_points=64, blur=0.5, device=device)(seeds)
        for device in ("cpu", DEVICE)
    ]
    assert torch.equal(paths[1].cpu(), paths[0])


def test_flows_of_a_pool_are_the_same():
    """Side by side in other numbers."""
    seeds = np.random.SeedSequence(0).spawn(5)
    samplers = ArraySampler(SOURCE), ArraySampler(TARGET)
    options = {"n_particles": 256, "blur": 0.5, "n_steps": 4}
    paths = [SinkhornFlows(*samplers, device=device, **options)(seeds) for device in ("cpu", DEVICE)]
    assert paths[1].device.type == torch.device(DEVICE).type
    # Of points that are about ten, and the flow triples a difference.
    assert_rounded(paths[1], paths[0], 10 * SOLVER_ROUNDINGS)


@pytest.fixture(scope="module")
def fits():
    """Of each estimator, the one that was fitted on the CPU and the one that was fitted on the device."""
    return {
        name: [clone(est).set_params(device=device).fit(SOURCE, TARGET) for device in ("cpu", DEVICE)]
        for name, est in ESTIMATORS.items()
    }


@pytest.fixture(scope="module")
def image_fits():
    return [clone(IMAGE_ESTIMATOR).set_params(device=device).fit(IMAGES) for device in ("cpu", DEVICE)]


ANSWERS = {
    "transform": lambda est, X: est.transform(X),
    "inverse_transform": lambda est, X: est.inverse_transform(X),
    "velocity": lambda est, X: est.velocity(X, 0.4),
    "path": lambda est, X: est.integrate(X, t_end=0.9, return_path=True),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_one_estimator_on_both(name, answer, fits):
    if name == "predicted" and answer in ("inverse_transform", "velocity"):
        pytest.skip("has none")
    est = pickle.loads(pickle.dumps(fits[name][0]))
    ask = ANSWERS[answer]
    single, double = ask(est, NEW), ask(est, NEW.astype(float))
    est.set_params(device=DEVICE)
    scale = np.abs(double).max()
    np.testing.assert_allclose(ask(est, NEW.astype(float)), double, rtol=0, atol=1e-11 * scale)
    # The device's rounding is about that of the CPU.
    rounding = np.abs(single - double).max()
    assert np.abs(ask(est, NEW) - double).max() < 10 * rounding


@pytest.mark.parametrize("name", ESTIMATORS)
def test_samples_of_one_estimator_on_both(name, fits):
    est = pickle.loads(pickle.dumps(fits[name][0]))
    expected = est.sample(200, random_state=0)
    found = est.set_params(device=DEVICE).sample(200, random_state=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_images_of_one_estimator_on_both(image_fits):
    """A GPU's convolutions of float32 are in TensorFloat-32, whose rounding is 2 ** -11."""
    est = pickle.loads(pickle.dumps(image_fits[0]))
    noise = np.random.default_rng(0).normal(8, 4, size=IMAGES[:50].shape)
    for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 2**-7)):
        X = noise.astype(dtype)
        for answer in ANSWERS.values():
            expected = answer(est.set_params(device="cpu"), X)
            found = answer(est.set_params(device=DEVICE), X)
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_fit_is_as_good(name, fits):
    """Energy distances to new points of the target: 12.1 before, -0.00 to 0.14 after fits with four seeds."""
    on_cpu, on_device = (energy_distance(est.transform(NEW), NEW_TARGET) for est in fits[name])
    assert on_cpu < 0.2
    assert on_device < 2 * on_cpu + 0.05


def test_a_fit_to_images_is_as_good(image_fits):
    """On the GPU in bfloat16. The distance of noise is 0.37, that of two fits on the CPU 0.08 and 0.10."""
    for est in image_fits:
        samples = est.sample(500, random_state=0).reshape(500, -1)
        assert energy_distance(samples, IMAGES.reshape(-1, 64)) < 0.2


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_seed_gives_the_same_bytes(name, fits):
    again = clone(fits[name][1]).fit(SOURCE, TARGET)
    np.testing.assert_array_equal(again.transform(NEW), fits[name][1].transform(NEW))


def test_classes():
    labels = np.repeat(["a", "b"], [300, 200])
    answers = []
    for device in ("cpu", DEVICE):
        est = clone(ESTIMATORS["direct"]).set_params(label_mode="condition", device=device)
        est.fit(TARGET, labels)
        answers.append(est.sample(50, labels="b", random_state=0))
    assert energy_distance(*answers) < 0.5


class Dropping(MLP):
    def __init__(self, event_shape):
        super().__init__(*event_shape, (32, 32))
        self.layers.insert(2, torch.nn.Dropout(0.5))


def test_the_generators_of_torch_are_as_before():
    """Also with dropout, which draws from the device's own."""
    torch.zeros(1, device=DEVICE)

    def states():
        generators = torch.default_generator, *torch.cuda.default_generators
        return torch.cat([generator.get_state() for generator in generators])

    before, answers = states(), []
    for name in ("direct", "predicted"):
        est = clone(ESTIMATORS[name]).set_params(network=Dropping, max_iter=20, device=DEVICE)
        answers = [est.fit(SOURCE, TARGET).transform(NEW) for _ in range(2)]
        np.testing.assert_array_equal(*answers)
        assert torch.equal(states(), before)


OPEN_WITHOUT_A_GPU = """
import pickle, sys
import numpy as np, torch

assert not torch.cuda.is_available()
with open(sys.argv[1], "rb") as file:
    est, X = pickle.load(file)
np.save(sys.argv[2], est.transform(X))
"""


def test_a_file_opens_without_a_gpu(fits, image_fits, tmp_path):
    ests = [fits["predicted"][1], image_fits[1]]
    for k, (est, X) in enumerate(zip(ests, (NEW, IMAGES[:20]), strict=True)):
        est = pickle.loads(pickle.dumps(est)).set_params(device="auto")
        path, answers = tmp_path / f"{k}.pickle", tmp_path / f"{k}.npy"
        path.write_bytes(pickle.dumps((est, X)))
        command = [sys.executable, "-c", OPEN_WITHOUT_A_GPU, path, answers]
        paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": paths}
        subprocess.run(command, env=environment, check=True, timeout=120)
        np.testing.assert_array_equal(np.load(answers), est.set_params(device="cpu").transform(X))


def used_memory():
    """Bytes of tensors on the device."""
    gc.collect()
    if ON_A_GPU:
        torch._C._cuda_clearCublasWorkspaces()
    return torch.cuda.memory_allocated()


def test_no_memory_stays_there():
    """A fitted estimator is on the CPU, and uses the device while it answers."""
    before = used_memory()
    for est in [*ESTIMATORS.values(), IMAGE_ESTIMATOR]:
        est = clone(est).set_params(device=DEVICE, max_iter=20)
        est.fit(*([IMAGES] if est.network else [SOURCE, TARGET]))
        est.sample(10, random_state=0)
        assert used_memory() == before


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_jobs_of_the_second_phase_share_the_device(backend, fits):
    """They move their starts there with the network that is trained."""
    est = clone(fits["direct"][1]).set_params(n_jobs=None)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        est.fit(SOURCE, TARGET)
    np.testing.assert_array_equal(est.transform(NEW), fits["direct"][1].transform(NEW))


@pytest.fixture
def limit_memory():
    """Leaves so many bytes to torch, beside those that it has in use."""

    def limit(n_bytes):
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + n_bytes) / total)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


class Wide(MLP):
    """Takes 128 KiB for each row."""

    def forward(self, t, x):
        return super().forward(t, x + 0 * x[:, :1].expand(-1, 2**15).contiguous().amax(1, keepdim=True))


def wide(event_shape):
    return Wide(*event_shape, (8,))


@needs_a_gpu
def test_rows_that_do_not_fit_go_in_parts(limit_memory):
    est = SinkhornFlowTransport(network=wide, **{**SMALL, "max_iter": 5}, **FLOWS, device=DEVICE)
    # Whatever held-out rows say of the network: one at rest would take no memory.
    est.set_params(early_stopping=False).fit(SOURCE, TARGET)
    X = np.random.default_rng(0).normal(size=(40_000, 2))
    expected = est.transform(X)
    limit_memory(2**28)
    with pytest.warns(UserWarning, match=r"The GPU's memory holds only \d+ rows at a time, instead of 16384"):
        found = est.transform(X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@needs_a_gpu
def test_flows_that_do_not_fit_go_in_parts(limit_memory):
    seeds = np.random.SeedSequence(0).spawn(64)
    rows = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)
    options = {"n_particles": 1024, "blur": 0.5, "n_steps": 2, "device": DEVICE}
    expected = SinkhornFlows(ArraySampler(rows), ArraySampler(rows + 1), **options)(seeds)
    limit_memory(2**28)
    with pytest.warns(UserWarning, match=r"The GPU's memory holds only \d+ flows at a time, instead of 64"):
        found = SinkhornFlows(ArraySampler(rows), ArraySampler(rows + 1), **options)(seeds)
    assert_rounded(found, expected.cpu(), SOLVER_ROUNDINGS)
