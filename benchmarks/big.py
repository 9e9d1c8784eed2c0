"""What do rows cost that are in a file and not in the memory?

    OMP_NUM_THREADS=1 python benchmarks/big.py --rows 50_000_000 --folder /tmp

Two float32 files of so many rows of 20 features, a normal sample and a bent one, are made in the folder, and
removed at the end. A SinkhornFlowTransport of 1 000 iterations is fitted to their maps with default flows for
as many steps, and to the first 50 000 rows. Then `transform(X, out=)` writes all moved rows into a third
file.

Printed are seconds of the clock and of the CPU, the largest anonymous memory above that of the imports (maps
of files do not count; sampled every 20 ms), the time of reading a file once, and the rows that `transform`
moves in a CPU second over those of the bare network, asked for 16 384 rows in memory at a time, as often as
`transform` asks it.
"""

import threading
import time
from pathlib import Path

import numpy as np
import torch
from _harness import make_parser, shortened

from sklearn_nsgf import SinkhornFlowTransport

N_FEATURES, N_AT_ONCE, FEW_ROWS = 20, 2**18, 50_000


def anonymous_memory():
    """Bytes of this process that no file holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


class Watch:
    """Seconds of a block, and the most memory in it above that at the start of the script."""

    base = 0

    def __enter__(self):
        self.most, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        self.start, self.cpu_start = time.perf_counter(), time.process_time()
        return self

    def _look(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, anonymous_memory())

    def __exit__(self, *exception):
        self.seconds = time.perf_counter() - self.start
        self.cpu_seconds = time.process_time() - self.cpu_start
        self.over.set()
        self.thread.join()

    def __str__(self):
        memory = (self.most - self.base) / 2**20
        return f"{self.seconds:.1f} s, {self.cpu_seconds:.1f} CPU s, {memory:.0f} MiB"


def write(path, n_rows, bend):
    file = np.memmap(path, dtype=np.float32, mode="w+", shape=(n_rows, N_FEATURES))
    rng = np.random.default_rng(int(bend))
    for start in range(0, n_rows, N_AT_ONCE):
        rows = rng.standard_normal((min(N_AT_ONCE, n_rows - start), N_FEATURES), dtype=np.float32)
        if bend:
            rows[:, 0] += 0.5 * rows[:, 1] ** 2
        file[start : start + N_AT_ONCE] = rows
    file.flush()


def fit(X, Y):
    est = shortened(SinkhornFlowTransport(early_stopping=False, random_state=0), 1 / 4)
    with Watch() as watch:
        est.fit(X, Y)
    return est, watch


@torch.no_grad()
def bare_rate(est, X):
    """Rows a CPU second of the network alone, in the steps of `transform`."""
    rows, network = torch.from_numpy(np.array(X[:16_384])), est.network_
    times = torch.zeros(len(rows))
    network(times, rows)
    start = time.process_time()
    n_rounds = 20
    for _ in range(n_rounds * est.n_steps):
        network(times, rows)
    return n_rounds * len(rows) / (time.process_time() - start)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    arguments = parser.parse_args()
    names = ("source", "target", "moved")
    paths = [arguments.folder / f"sklearn_nsgf_{name}.dat" for name in names]
    try:
        for path, bend in zip(paths[:2], (False, True), strict=True):
            write(path, arguments.rows, bend)
        shape = arguments.rows, N_FEATURES
        X, Y = (np.memmap(path, dtype=np.float32, mode="r", shape=shape) for path in paths[:2])
        Watch.base = anonymous_memory()
        _, few = fit(np.array(X[:FEW_ROWS]), np.array(Y[:FEW_ROWS]))
        print(f"fit to {FEW_ROWS} rows in memory: {few}", flush=True)
        with Watch() as reading:
            for start in range(0, len(X), N_AT_ONCE):
                X[start : start + N_AT_ONCE].sum()
        print(f"reading a file of {X.nbytes / 1e9:.1f} GB: {reading}", flush=True)
        est, many = fit(X, Y)
        print(f"fit to {len(X)} rows in files: {many}", flush=True)
        out = np.memmap(paths[2], dtype=np.float32, mode="w+", shape=shape)
        with Watch() as moving:
            est.transform(X, out=out)
        rate, bare = len(X) / moving.cpu_seconds, bare_rate(est, X)
        print(f"transform of all rows into a file: {moving}")
        print(f"rows a CPU second: {rate:.0f}, of the bare network {bare:.0f}: {rate / bare:.2f}")
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
