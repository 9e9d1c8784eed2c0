"""Hashes of what fits answered before the fitted model became an object."""

import hashlib
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.domains import stack_domains

FILE = Path(__file__).with_suffix(".json")
SMALL = {"max_iter": 30, "hidden_layer_sizes": (16,), "random_state": 0}
FLOWS = {"n_flows": 6, "flow_batch_size": 64}
COUPLINGS = {"n_couplings": 6, "coupling_batch_size": 64}
NSGF = {**SMALL, **FLOWS}
FM = {**SMALL, **COUPLINGS}
BOTH = {**SMALL, **FLOWS, **COUPLINGS}
PREDICTED = {**BOTH, "transition": "predicted"}
TINY = {"max_iter": 2, "random_state": 0}
MODE = "label_mode" if hasattr(SinkhornFlowTransport(), "label_mode") else "labels"

rng = np.random.default_rng(0)
source = rng.normal(size=(150, 3))
target = rng.normal([5, -3, 0], [0.5, 2, 1], size=(120, 3))
ys, yt = np.arange(150) % 3, np.arange(120) % 3
X, y, domain = stack_domains(source, target, ys, yt)
partly = np.where(domain < 0, np.where(np.arange(len(y)) % 2, y, -1), y)
grey = rng.integers(0, 255, size=(24, 6, 6)).astype(np.uint8)
colour = rng.random((20, 6, 5, 3)).astype(np.float32)


def answers(est, points, **options):
    yield est.transform(points, **options)
    yield est.sample(20, random_state=0)
    yield np.float64(est.score(points, target) if "labels" not in options else 0)
    yield est.velocity(points[:9], 0.3, **({k: v[:9] for k, v in options.items()}))


def generation(est, points):
    yield est.sample(20, random_state=0)
    yield np.float64(est.score(points))
    yield est.integrate(points.astype(np.float32), return_path=True)


def twice(est, *arguments, **options):
    return est.set_params(warm_start=True).fit(*arguments, **options).fit(*arguments, **options)


def parts(est):
    return est.partial_fit(source[:80], target[:60]).partial_fit(source[80:], target[60:])


def first_part(est):
    return est.partial_fit(source[:80], target[:60])


S, F, N = SinkhornFlowTransport, FlowMatchingTransport, NSGFPlusPlus
CASES = {
    "s": lambda: answers(S(**NSGF).fit(source, target), source),
    "f": lambda: answers(F(**FM).fit(source, target), source),
    "n": lambda: answers(N(**BOTH).fit(source, target), source),
    "n backwards": lambda: [N(**BOTH).fit(source, target).inverse_transform(target)],
    "n predicted": lambda: answers(N(**PREDICTED).fit(source, target), source),
    "n predicted times": lambda: [N(**PREDICTED).fit(source, target).transition_time(source)],
    "s noise": lambda: generation(S(**NSGF).fit(target.astype(np.float32)), target.astype(np.float32)),
    "n noise": lambda: generation(N(**BOTH).fit(target), target),
    "f sinkhorn": lambda: answers(
        F(**FM, coupling="sinkhorn", early_stopping=False).fit(source, target), source
    ),
    "s rolling": lambda: answers(S(**NSGF, pool_size=2, early_stopping=True).fit(source, target), source),
    "f rolling": lambda: answers(F(**FM, pool_size=2, solver="rk4").fit(source, target), source),
    "s condition": lambda: answers(
        S(**NSGF, **{MODE: "condition"}).fit(X, y, sample_domain=domain), source, labels=ys
    ),
    "n condition": lambda: answers(
        N(**BOTH, **{MODE: "condition"}).fit(X, y, sample_domain=domain), source, labels=ys
    ),
    "f condition noise": lambda: [F(**FM, **{MODE: "condition"}).fit(target, yt).sample(20, random_state=0)],
    "s couple": lambda: answers(S(**NSGF, **{MODE: "couple"}).fit(X, partly, sample_domain=domain), source),
    "n couple": lambda: answers(N(**BOTH, **{MODE: "couple"}).fit(X, partly, sample_domain=domain), source),
    "s grey": lambda: generation(S(**TINY, **FLOWS).fit(grey), grey),
    "n colour": lambda: [N(**TINY, **FLOWS, **COUPLINGS).fit(colour).sample(3, random_state=0)],
    "n predicted grey": lambda: generation(
        N(**TINY, **FLOWS, **COUPLINGS, transition="predicted").fit(grey), grey
    ),
    "s warm": lambda: answers(twice(S(**NSGF), source, target), source),
    "n warm": lambda: answers(twice(N(**BOTH), source, target), source),
    "n predicted warm": lambda: answers(twice(N(**PREDICTED), source, target), source),
    "s first part": lambda: answers(first_part(S(**NSGF)), source),
    "n first part": lambda: answers(first_part(N(**BOTH)), source),
    "s parts": lambda: answers(parts(S(**NSGF)), source),
    "f parts": lambda: answers(parts(F(**FM)), source),
    "n parts": lambda: answers(parts(N(**BOTH)), source),
}


def digest(arrays):
    sha = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        sha.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return sha.hexdigest()[:16]


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = {name: digest(case()) for name, case in CASES.items()}
    if "--write" in sys.argv:
        FILE.write_text(json.dumps(found, indent=1))
    expected = json.loads(FILE.read_text())
    changed = [name for name in found if found[name] != expected[name]]
    sys.stdout.write(f"{len(found) - len(changed)} of {len(found)} as before; changed: {changed}\n")


if __name__ == "__main__":
    main()
