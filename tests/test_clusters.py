"""Fits on a cluster's workers: dask and ray as backends of joblib."""

import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
import torch
from clouds import two_clouds
from limits import time_limit
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.flow import ArraySampler, Couplings, SinkhornFlows, TrajectoryPool

SMALL = {"max_iter": 20, "hidden_layer_sizes": (16,), "early_stopping": False, "random_state": 0}
# So large that each flow is a task of its own.
FLOWS = {"n_flows": 4, "flow_batch_size": 512, "n_steps": 2, "blur": 0.3}
COUPLINGS = {"n_couplings": 4, "coupling_batch_size": 64}
ESTIMATORS = {
    "sinkhorn": SinkhornFlowTransport(**SMALL, **FLOWS),
    "matching": FlowMatchingTransport(**SMALL, **COUPLINGS),
    "plus plus": NSGFPlusPlus(
        **SMALL, **COUPLINGS, n_flows=4, flow_batch_size=512, n_sinkhorn_steps=2, blur=0.3
    ),
}
# Seconds. A worker imports torch first: 3 s, and 40 s measured with four busy processes for each core.
LIMIT = 240
SOURCE, TARGET = two_clouds(600, 550)


@pytest.fixture(autouse=True)
def limit():
    with time_limit(LIMIT):
        yield


@pytest.fixture(scope="module")
def dask_client():
    distributed = pytest.importorskip("dask.distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        time_limit(LIMIT),
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def ray_cluster():
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    with time_limit(LIMIT):
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    yield
    ray.shutdown()


@pytest.fixture(params=["dask", "ray"])
def on_the_cluster(request):
    """A context in which joblib sends its tasks to another process."""
    request.getfixturevalue({"dask": "dask_client", "ray": "ray_cluster"}[request.param])
    return lambda: joblib.parallel_config(request.param, n_jobs=2)


def answers(est):
    return est.transform(SOURCE).tobytes() + est.inverse_transform(TARGET).tobytes()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_fit_has_the_bytes_of_one_process(on_the_cluster, name):
    est = clone(ESTIMATORS[name]).fit(SOURCE, TARGET)
    with on_the_cluster():
        again = clone(est).fit(SOURCE, TARGET)
    assert answers(again) == answers(est)


def test_a_search_has_the_scores_of_one_process(on_the_cluster):
    grid = {"learning_rate": [0.001, 0.01]}
    search = GridSearchCV(ESTIMATORS["matching"], grid, cv=2, error_score="raise").fit(TARGET)
    with on_the_cluster():
        again = clone(search).fit(TARGET)
    scores = [each.cv_results_["mean_test_score"] for each in (search, again)]
    np.testing.assert_array_equal(*scores)
    assert answers(again) == answers(search)


class Whole(ArraySampler):
    """Rows that stay where they are."""

    def __reduce__(self):
        raise TypeError("A whole sample was sent to a worker.")


@pytest.mark.parametrize("kind", ["flows", "couplings"])
def test_only_minibatches_leave(on_the_cluster, kind):
    source, target = Whole(SOURCE), Whole(TARGET)
    if kind == "flows":
        maker = SinkhornFlows(source, target, n_particles=512, blur=0.3, n_steps=2)
    else:
        maker = Couplings(source, target, coupling="exact", n_points=64)
    seeds = np.random.SeedSequence(0).spawn(3)
    expected = maker(seeds)
    with on_the_cluster():
        assert torch.equal(maker(seeds), expected)


def kill_a_busy_worker(client, pids, killed):
    while not (busy := [worker for worker, tasks in client.processing().items() if tasks]):
        time.sleep(0.01)
    os.kill(pids[busy[0]], signal.SIGKILL)
    killed.append(busy[0])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_worker_that_is_killed_is_replaced(dask_client):
    def pool():
        flows = SinkhornFlows(
            ArraySampler(SOURCE), ArraySampler(TARGET), n_particles=512, blur=0.05, n_steps=10
        )
        return TrajectoryPool(flows, n_blocks=7, seed=0)

    expected = pool().paths
    pids, killed = dask_client.run(os.getpid), []
    killer = threading.Thread(target=kill_a_busy_worker, args=(dask_client, pids, killed))
    with joblib.parallel_config("dask"):
        interrupted = pool()
        killer.start()
        found = interrupted.paths
    assert killed
    assert torch.equal(found, expected)
    killer.join()
    dask_client.wait_for_workers(2)
    assert len(set(dask_client.run(os.getpid).values()) - set(pids.values())) == 1
