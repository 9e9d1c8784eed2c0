"""Run as a program: fits are killed at random moments, again and again, and then go on to the end.

The argument is an empty folder. The last line printed is a JSON object.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

from clouds import two_clouds

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._learning import checkpoint

SMALL = {"max_iter": 200, "hidden_layer_sizes": (8,), "random_state": 0, "early_stopping": False}
FLOWS = {"n_flows": 12, "flow_batch_size": 16}
COUPLINGS = {"n_couplings": 32, "coupling_batch_size": 16}
ESTIMATORS = {
    "sinkhorn": SinkhornFlowTransport(**SMALL, **FLOWS, pool_size=3),
    "matching": FlowMatchingTransport(**{**SMALL, "early_stopping": True}, **COUPLINGS),
    "direct": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS),
    "predicted": NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS, transition="predicted"),
}
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]


def write_answer(est, path):
    source, target = two_clouds(100, 90)
    answer = hashlib.sha256(est.fit(source, target).transform(source).tobytes())
    for leg in est.model_.legs:
        answer.update(repr(leg.curves).encode())
    path.write_text(answer.hexdigest())


def forked(action, *arguments):
    """Start the action in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            action(*arguments)
        finally:
            os._exit(0)
    return child


def kill_and_resume(est, folder):
    (folder / "kept").mkdir(parents=True)
    start = time.monotonic()
    os.waitpid(forked(write_answer, est, folder / "expected"), 0)
    took = time.monotonic() - start
    est.set_params(checkpoint=folder / "kept" / "fit")
    left, delays = [], []
    for number in SIGNALS:
        child = forked(write_answer, est, folder / "killed")
        time.sleep(random.uniform(0, took))
        os.kill(child, number)
        start = time.monotonic()
        _, status = os.waitpid(child, 0)
        delays.append(time.monotonic() - start)
        assert status in (0, number), status
        left.append(sorted(path.name for path in (folder / "kept").iterdir()))
    os.waitpid(forked(write_answer, est, folder / "resumed"), 0)
    return {
        "is_same": (folder / "expected").read_text() == (folder / "resumed").read_text(),
        "left": left,
        "left_in_the_end": os.listdir(folder / "kept"),
        "longest_delay": max(delays),
    }


if __name__ == "__main__":
    # Nothing is computed in this process: the others begin as new ones do.
    warnings.simplefilter("ignore")
    checkpoint.INTERVAL = 0.0
    results = {name: kill_and_resume(est, Path(sys.argv[1], name)) for name, est in ESTIMATORS.items()}
    sys.stdout.write(json.dumps(results))
