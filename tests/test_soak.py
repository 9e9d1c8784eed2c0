"""Many fits in one process, and many threads at one estimator."""

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from clouds import two_clouds
from limits import time_limit
from sklearn.base import clone

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport

SMALL = {"max_iter": 8, "hidden_layer_sizes": (16,), "early_stopping": False, "random_state": 0, "n_jobs": 2}
FLOWS = {"n_flows": 4, "flow_batch_size": 32, "blur": 0.3}
COUPLINGS = {"n_couplings": 4, "coupling_batch_size": 32}
ESTIMATORS = [
    SinkhornFlowTransport(**SMALL, **FLOWS, n_steps=2),
    FlowMatchingTransport(**SMALL, **COUPLINGS),
    NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, n_sinkhorn_steps=2),
]
SOURCE, TARGET = two_clouds(90, 60)
# Allocators keep and split memory for a while: over 480 fits half a MiB was measured. Each fit's pool and
# network, if they stayed, would be 100 KiB and more.
MOST_GROWTH = 2**25


def use_once(est):
    est = clone(est).fit(SOURCE, TARGET)
    est.transform(SOURCE)
    est.sample(10, random_state=0)


def resident_bytes():
    """Memory of the process, also that of torch, which tracemalloc does not see."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_use():
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
@pytest.mark.parametrize("n_fits", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_fit_after_fit_leaves_nothing_behind(n_fits):
    with time_limit(10 * n_fits):
        for k in range(15):
            use_once(ESTIMATORS[k % 3])
        before, n_bytes = in_use(), resident_bytes()
        for k in range(n_fits):
            use_once(ESTIMATORS[k % 3])
        assert in_use() == before
        assert resident_bytes() - n_bytes < MOST_GROWTH


@pytest.mark.parametrize("est", ESTIMATORS, ids=lambda est: type(est).__name__)
def test_answers_in_eight_threads_are_those_of_one(est):
    est = clone(est).fit(SOURCE, TARGET)

    def answers(seed):
        moved, drawn = est.transform(SOURCE), est.sample(40, random_state=seed)
        return moved.tobytes() + drawn.tobytes() + np.float64(est.score(SOURCE, TARGET)).tobytes()

    seeds = [k % 4 for k in range(24)]
    alone = [answers(seed) for seed in range(4)]
    with time_limit(120), ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answers, seeds)) == [alone[seed] for seed in seeds]


@pytest.mark.parametrize("est", ESTIMATORS[:2], ids=lambda est: type(est).__name__)
def test_fits_in_four_threads_are_those_of_one(est):
    def fit(seed):
        fitted = clone(est).set_params(random_state=seed).fit(SOURCE, TARGET)
        return fitted.transform(SOURCE).tobytes()

    alone = list(map(fit, range(4)))
    with time_limit(120), ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fit, range(4))) == alone
