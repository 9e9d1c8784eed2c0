"""What does a grid search cost, in one process and in two, what does it find, and what do callbacks cost?

    python benchmarks/search.py --seeds 3
    python benchmarks/search.py --callbacks

The search: 8 candidates and 3 folds on 500 source rows (normal) and 500 target rows (four bent clusters) in
5 dimensions, stacked, with metadata routing. Printed are the wall-clock seconds, the largest proportional
memory of the process and its workers together (Pss, read from /proc twice a second; Linux only), and the
energy distance on 4 000 new rows of both samples for the candidate that the search picks, refitted, for the
default parameters, and for a second sample of the target (the floor).

With --callbacks: the seconds that pass within scikit-learn's callback contexts, with a callback that does
nothing, as a share of those of the fit; and, interleaved, CPU seconds of fits with and without it.
"""

import threading
import time
from pathlib import Path

import numpy as np
import sklearn
from _harness import make_parser, spread, timed_fit
from sklearn.model_selection import GridSearchCV

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.domains import DomainKFold, stack_domains
from sklearn_nsgf.metrics import energy_distance

N_FEATURES, N_ROWS, N_NEW = 5, 500, 4000
GRID = {"blur": [0.03, 0.08, 0.15, 0.3], "max_iter": [500, 4000]}


def draw_clouds(n_rows, rng):
    """Source and target."""
    return rng.normal(size=(n_rows, N_FEATURES)), draw_target(n_rows, rng)


def draw_target(n_rows, rng):
    centres = 3 * np.eye(4, N_FEATURES)[np.arange(n_rows) % 4]
    rows = centres + 0.5 * rng.normal(size=(n_rows, N_FEATURES))
    rows[:, -1] += 0.5 * rows[:, 0] ** 2
    return rows


class MemoryWatch(threading.Thread):
    """The largest memory of this process and all below it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.largest, self.over = 0, threading.Event()

    def run(self):
        while not self.over.wait(0.5):
            self.largest = max(self.largest, sum(map(_proportional_bytes, _family())))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def _family():
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    family = {int(Path("/proc/self").resolve().name)}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _proportional_bytes(process):
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def search(seed, n_jobs):
    """Print one search; return the energy distances of what it picks, of the defaults, and the floor."""
    rng = np.random.default_rng(seed)
    (source, target), (new_source, new_target) = draw_clouds(N_ROWS, rng), draw_clouds(N_NEW, rng)
    X, _, sample_domain = stack_domains(source, target)
    flow = SinkhornFlowTransport(random_state=seed)
    folds = DomainKFold(3, shuffle=True, random_state=0)
    found = GridSearchCV(flow, GRID, cv=folds, n_jobs=n_jobs, error_score="raise")
    start = time.perf_counter()
    with MemoryWatch() as watch:
        found.fit(X, sample_domain=sample_domain)
    seconds = time.perf_counter() - start
    models = found.best_estimator_, flow.fit(source, target)
    answers = *(model.transform(new_source) for model in models), draw_target(N_NEW, rng)
    picked, default, floor = (energy_distance(answer, new_target) for answer in answers)
    print(
        f"seed {seed}, n_jobs={n_jobs}: {seconds:.0f} s, {watch.largest / 2**20:.0f} MiB, "
        f"picked {found.best_params_} {picked:.4f}, default {default:.4f}, floor {floor:.4f}",
        flush=True,
    )
    return picked, default, floor


class Nothing:
    """A callback that does nothing."""

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context): ...


def seconds_in_contexts(est, *samples):
    """Seconds of a fit, and those of it that pass in callback contexts."""
    from sklearn.callback import CallbackContext

    spent = [0.0]

    def timed(method):
        def call(*arguments, **options):
            start = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                spent[0] += time.perf_counter() - start

        return call

    names = ("subcontext", "call_on_fit_task_begin", "call_on_fit_task_end")
    methods = {name: getattr(CallbackContext, name) for name in names}
    try:
        for name, method in methods.items():
            setattr(CallbackContext, name, timed(method))
        _, seconds = timed_fit(est, *samples)
    finally:
        for name, method in methods.items():
            setattr(CallbackContext, name, method)
    return seconds, spent[0]


def cpu_seconds(est, *samples):
    start = time.process_time()
    est.fit(*samples)
    return time.process_time() - start


def callbacks(n_repeats=5):
    samples = draw_clouds(N_ROWS, np.random.default_rng(0))
    options = {"max_iter": 1000, "early_stopping": False, "random_state": 0, "n_jobs": 1}
    for estimator in (SinkhornFlowTransport, FlowMatchingTransport, NSGFPlusPlus):
        silent, heard = estimator(**options), estimator(**options).set_callbacks(Nothing())
        seconds, spent = seconds_in_contexts(heard, *samples)
        ratios = [cpu_seconds(heard, *samples) / cpu_seconds(silent, *samples) for _ in range(n_repeats)]
        print(
            f"{estimator.__name__}: {1e3 * spent:.2f} ms of {seconds:.1f} s in contexts "
            f"({spent / seconds:.4%}); CPU with / without: {np.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )


def main():
    parser = make_parser(__doc__, seeds=3)
    parser.add_argument("--callbacks", action="store_true", help="what callbacks cost, instead")
    arguments = parser.parse_args()
    if arguments.callbacks:
        return callbacks()
    sklearn.set_config(enable_metadata_routing=True)
    search(0, n_jobs=1)
    results = zip(*(search(seed, n_jobs=2) for seed in range(arguments.seeds)), strict=True)
    for name, values in zip(("picked", "default", "floor"), results, strict=True):
        print(f"{name} {spread(values, 4)}")


if __name__ == "__main__":
    main()
