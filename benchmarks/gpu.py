"""What does a GPU save? A large fit and a large transform on it and on the CPU of the same machine.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --rows 20000 --devices cpu

Source and target have a million rows of 50 features, in float32: a normal sample and 30 clusters. Printed
are the seconds of SinkhornFlowTransport with its defaults but for few iterations: of all that comes before
the training, and of the training, which makes the flows, with small batches and a single flow, and with large
batches and many. Then the rows that `transform` moves in a second. A small fit before loads what a
first call does. For a GPU it also prints the peak of its memory, and whether two fits with one seed are the
same bytes, for vectors and for images.
"""

import platform
import time

import numpy as np
import sklearn
import torch
from _harness import make_parser, print_row

import sklearn_nsgf
from sklearn_nsgf import FlowMatchingTransport, SinkhornFlowTransport
from sklearn_nsgf.networks import MLP


def samples(n_rows, d=50):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((30, d), dtype=np.float32)
    target = centres[rng.integers(30, size=n_rows)]
    target += 0.3 * rng.standard_normal(target.shape, dtype=np.float32)
    return rng.standard_normal(target.shape, dtype=np.float32), target


def timed_phases(X, Y, **options):
    """The fitted estimator, and the seconds before and in the training, which begins with a network."""
    times = [time.perf_counter()]

    def network(event_shape):
        times.append(time.perf_counter())
        return MLP(*event_shape, (256, 256, 256))

    est = SinkhornFlowTransport(**options, network=network, random_state=0).fit(X, Y)
    return est, *np.diff([*times, time.perf_counter()])


def measure(device, X, Y, arguments):
    options = {"device": device, "max_iter": arguments.iterations}
    small, large = arguments.batch_sizes
    timed_phases(X[:10_000], Y[:10_000], device=device, n_flows=1, max_iter=3)
    _, reading, small_batches = timed_phases(X, Y, n_flows=1, batch_size=small, **options)
    est, _, large_batches = timed_phases(X, Y, n_flows=arguments.flows, batch_size=large, **options)
    seconds = [reading, small_batches, large_batches]
    start = time.perf_counter()
    est.transform(X)
    rate = len(X) / (time.perf_counter() - start)
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if device != "cpu" else ""
    print_row(device, [*(f"{each:.2f}" for each in seconds), f"{rate:,.0f}", peak], 16, 6)


def are_same_bytes(est, *data):
    """Whether two fits with one seed give the same bytes."""
    answers = [est.fit(*data).sample(100, random_state=0) for _ in range(2)]
    return np.array_equal(*answers)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--flows", type=int, default=256, help="with large batches")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--batch-sizes", type=int, nargs=2, default=[256, 8192])
    parser.add_argument("--devices", nargs="+", default=["cuda", "cpu"])
    arguments = parser.parse_args()
    versions = (f"{module.__name__} {module.__version__}" for module in (sklearn_nsgf, torch, sklearn, np))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(
        f"{gpu}, {torch.get_num_threads()} CPU threads, Python {platform.python_version()}",
        *versions,
        sep=", ",
    )
    X, Y = samples(arguments.rows)
    batches = [f"{arguments.iterations} x {batch_size}, s" for batch_size in arguments.batch_sizes]
    print_row("", ["reading, s", *batches, "rows/s", "peak"], 16, 6)
    for device in arguments.devices:
        measure(device, X, Y, arguments)
    if "cuda" in arguments.devices:
        small = {"n_couplings": 8, "coupling_batch_size": 256, "max_iter": 100, "random_state": 0}
        est = FlowMatchingTransport(**small, device="cuda")
        images = np.random.default_rng(0).integers(0, 256, size=(500, 16, 16)).astype(np.uint8)
        print(f"same seed, same bytes: {are_same_bytes(est, X[:5000], Y[:5000])} for vectors,", end=" ")
        print(f"{are_same_bytes(est, images)} for images")


if __name__ == "__main__":
    main()
