"""What dask's processes cost beside threads, per minibatch of Sinkhorn flows and of pairs that need no work.

    pip install "dask[distributed]"
    OMP_NUM_THREADS=1 python benchmarks/clusters.py

Printed are wall milliseconds per minibatch, each the fastest of some repetitions in which both take turns.
With one worker of one thread joblib stays in its own process, whatever the backend.
"""

import time

import joblib
import numpy as np
from _harness import ResultsFile, make_parser, print_row
from dask.distributed import Client, LocalCluster

from sklearn_nsgf.flow import ArraySampler, Couplings, SinkhornFlows

N_FEATURES, N_ROWS = 16, 4096
N_MINIBATCHES = {256: 256, 1024: 64, 2048: 24}


def makers(n_points, n_jobs):
    """Flows, and pairs drawn without any plan, of which only the sending takes time."""
    rng = np.random.default_rng(0)
    source, target = (
        ArraySampler(rng.normal(mean, size=(N_ROWS, N_FEATURES)).astype(np.float32)) for mean in (0, 3)
    )
    return {
        "flows": SinkhornFlows(source, target, n_particles=n_points, blur=0.3, n_steps=2, n_jobs=n_jobs),
        "pairs": Couplings(source, target, coupling="independent", n_points=n_points, n_jobs=n_jobs),
    }


def seconds(maker, backend, seeds):
    """Wall seconds per minibatch."""
    with joblib.parallel_config(backend):
        start = time.perf_counter()
        maker(seeds)
        return (time.perf_counter() - start) / len(seeds)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="3 by default")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers, 1 and 2 by default")
    args = parser.parse_args()
    results = ResultsFile("kind", "points", "workers", "threads", "dask", n_keys=3)
    print_row("", ["workers", "threads, ms", "dask, ms", "dask / threads"], width=16)
    for n_workers in args.workers:
        options = {"n_workers": n_workers, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**options) as cluster, Client(cluster):
            for n_points, n_minibatches in N_MINIBATCHES.items():
                seeds = np.random.SeedSequence(0).spawn(n_minibatches)
                for kind, maker in makers(n_points, n_workers).items():
                    seconds(maker, "dask", seeds)
                    runs = [
                        [seconds(maker, backend, seeds) for backend in ("threading", "dask")]
                        for _ in range(args.repeats)
                    ]
                    threads, dask = np.min(runs, axis=0)
                    results.write(kind, n_points, n_workers, threads, dask)
                    cells = [n_workers, f"{1e3 * threads:.1f}", f"{1e3 * dask:.1f}", f"{dask / threads:.1f}"]
                    print_row(f"{kind}, {n_points} points", cells, width=16)


if __name__ == "__main__":
    main()
