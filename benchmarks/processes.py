"""How many images a second do two processes train on, beside one with half of the batch?

    OMP_NUM_THREADS=1 python benchmarks/processes.py

A U-Net of width 16 for images of 28 x 28 and FlowMatchingTransport with random pairs of noise, fitted by one
process with batches of 64 and by two joined by gloo with batches of 128, in turns. Images a second are those
of the training steps alone: the difference of a fit of 60 iterations and one of 20. Printed are the rates of
each round and the median ratio. Both processes are on this machine: with fewer than two idle cores there is
nothing to gain.
"""

import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from _harness import make_parser, print_row

from sklearn_nsgf import FlowMatchingTransport
from sklearn_nsgf.networks import UNet

BATCH_SIZE, FEW, MANY = 64, 20, 60


def network(event_shape):
    return UNet(event_shape, n_channels=16, attention_levels=())


def train(rank, size, store):
    """Print the images a second of all processes together."""
    torch.set_num_threads(1)
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    images = np.random.default_rng(0).uniform(0, 255, size=(512, 28, 28)).astype(np.uint8)
    seconds = []
    for max_iter in (2, FEW, MANY):  # the first one loads what the others need
        est = FlowMatchingTransport(
            network=network,
            coupling="independent",
            n_couplings=2,
            batch_size=size * BATCH_SIZE,
            max_iter=max_iter,
            random_state=0,
        )
        start = time.perf_counter()
        est.fit(images)
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        print((MANY - FEW) * size * BATCH_SIZE / (seconds[2] - seconds[1]))


def rate(size):
    """Images a second of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        commands = [
            [sys.executable, __file__, "--rank", str(k), "--size", str(size), "--store", f"file://{folder}/s"]
            for k in range(size)
        ]
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
        return float(started[0].communicate()[0])


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank", type=int, default=None, help="set by the script itself, as the next two")
    parser.add_argument("--size", type=int)
    parser.add_argument("--store")
    arguments = parser.parse_args()
    if arguments.rank is not None:
        return train(arguments.rank, arguments.size, arguments.store)
    print_row("images a second", ["one", "two", "two / one"])
    ratios = []
    for k in range(arguments.rounds):
        one, two = rate(1), rate(2)
        ratios.append(two / one)
        print_row(f"round {k}", [f"{one:.0f}", f"{two:.0f}", f"{ratios[-1]:.2f}"])
    print(f"median ratio {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
