"""How like 1 400 handwritten digits are new ones: NSGF++ beside flow matching given the same seconds.

    pip install torchcfm --no-deps
    python benchmarks/digits.py --seeds 3
    python benchmarks/digits.py --seeds 3 --nsgf-only        # without the peers
    python benchmarks/digits.py --seeds 3 --defaults         # our three with their default parameters

scikit-learn's digits, 8 x 8 pixels; 397 images are held out for the test. Every method has the same
network, a perceptron of three layers of 512, and the seconds of the NSGF++ fit, its Sinkhorn flows and
couplings included. Ours start around clusters of the digits, torchcfm's at noise with the pixels' deviations.

Printed is, for several numbers of evaluations of a network, how far samples, rounded to the 17 grey values,
are from the held-out images; mean and spread over the seeds. With --defaults only the pixels' common unit
is set: every method has as many iterations, and the seconds are those of the CPU.

- energy distance, in units of the root mean square deviation of a pixel;
- Fréchet distance in the last hidden layer (32 units) of a perceptron that tells the digits apart;
- accuracy of a random forest that tells samples from held-out images, 0.5 being the best; the mean of
  several draws of as many samples.

The floor is the same figures for the training images. Samples and paths of the first seed are drawn in
digits.png.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from _harness import Torchcfm, make_parser, print_row, spread, timed_fit, with_evaluations
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.metrics import energy_distance, frechet_distance
from sklearn_nsgf.networks import make_network

# With early stopping a training on so few digits would take fewer iterations than it has seconds for.
OPTIONS = {
    "hidden_layer_sizes": (512, 512, 512),
    "learning_rate": 0.002,
    "standardize": False,
    "early_stopping": False,
}
MAX_ITER = 5000
N_EVALUATIONS = [5, 10, 20, 50, 100]
# The predicted transition takes five steps before it, and the start none.
LEFT_OUT = {"NSGF++ predicted": [5], "start": N_EVALUATIONS[1:]}
N_SAMPLES = 2000
# Points a minibatch, and minibatches an iteration.
SHARES = {"independent": (1024, 1 / 4), "exact": (256, 1)}


class Judge:
    """Measures samples against the held-out images."""

    def __init__(self, train, test, labels):
        self.test, self.unit = test, np.sqrt(test.var(axis=0).mean())
        self.classifier = MLPClassifier((64, 32), max_iter=500, random_state=0).fit(train, labels)

    def features(self, images):
        for weights, offsets in zip(
            self.classifier.coefs_[:-1], self.classifier.intercepts_[:-1], strict=True
        ):
            images = np.maximum(images @ weights + offsets, 0)
        return images

    def __call__(self, samples):
        samples = np.clip(np.rint(samples), 0, 16)
        n_test = len(self.test)
        labels = np.repeat([0, 1], n_test)
        accuracies = []
        for start in range(0, len(samples) - n_test + 1, n_test):
            both = np.concatenate([samples[start : start + n_test], self.test])
            forest = RandomForestClassifier(100, random_state=0, n_jobs=-1)
            accuracies.append(cross_val_score(forest, both, labels, cv=3).mean())
        return [
            energy_distance(samples / self.unit, self.test / self.unit),
            frechet_distance(self.features(samples), self.features(self.test)),
            np.mean(accuracies),
        ]


def nsgf_plus_plus(train, seed, **options):
    est, seconds = timed_fit(NSGFPlusPlus(**OPTIONS, max_iter=MAX_ITER, random_state=seed, **options), train)

    def sample(n_evaluations):
        return with_evaluations(est, n_evaluations).sample(N_SAMPLES, random_state=seed)

    return est, sample, seconds


def flow_matching(train, seed, coupling, seconds):
    """Ours, with as many iterations as the seconds are enough for."""
    coupling_batch_size, couplings_an_iteration = SHARES[coupling]

    def fit(max_iter):
        est = FlowMatchingTransport(
            **OPTIONS,
            coupling=coupling,
            coupling_batch_size=coupling_batch_size,
            n_couplings=int(max_iter * couplings_an_iteration),
            max_iter=max_iter,
            random_state=seed,
        )
        return timed_fit(est, train)

    _, trial = fit(400)
    est, spent = fit(int(400 * seconds / trial))

    def sample(n_evaluations):
        return with_evaluations(est, n_evaluations).sample(N_SAMPLES, random_state=seed)

    return sample, spent, est.n_iter_


def torchcfm(train, seed, name, seconds):
    network = make_network((train.shape[1],), hidden_layer_sizes=OPTIONS["hidden_layer_sizes"], seed=seed)
    options = {"per_feature": False, "seed": seed, "learning_rate": OPTIONS["learning_rate"]}
    peer = Torchcfm(name, network, None, train, seconds=seconds, **options)
    return lambda n_evaluations: peer.sample(N_SAMPLES, n_evaluations, seed), seconds, peer.n_iter_


def fit_all(train, seed, nsgf_only):
    """How each method draws samples, its seconds and iterations; and the direct NSGF++."""
    est, sample, seconds = nsgf_plus_plus(train, seed)
    methods = {"NSGF++ direct": (sample, seconds, est.n_iter_)}
    other, sample, spent = nsgf_plus_plus(train, seed, transition="predicted", n_sinkhorn_steps=5)
    methods["NSGF++ predicted"] = sample, spent, other.n_iter_
    if not nsgf_only:
        methods["I-CFM, ours"] = flow_matching(train, seed, "independent", seconds)
        methods["OT-CFM, ours"] = flow_matching(train, seed, "exact", seconds)
        for name in ("I-CFM", "OT-CFM"):
            methods[f"{name}, torchcfm"] = torchcfm(train, seed, name, seconds)
    return methods, est


def fit_defaults(train, seed):
    """The same for our three, with NSGF++ last, and before them for where they start."""
    methods = {}
    flows = SinkhornFlowTransport, FlowMatchingTransport, NSGFPlusPlus
    options = {"standardize": False, "random_state": seed}
    for est in (FlowMatchingTransport(max_iter=0, **options), *(flow(**options) for flow in flows)):
        start = time.process_time()
        est.fit(train)
        seconds = time.process_time() - start

        def sample(n_evaluations, est=est):
            return with_evaluations(est, n_evaluations).sample(N_SAMPLES, random_state=seed)

        methods[type(est).__name__ if est.n_iter_ else "start"] = sample, seconds, est.n_iter_
    return methods, est


def tile(grid):
    """One picture of rows and columns of images, with margins."""
    grid = np.pad(grid, ((0, 0), (0, 0), (1, 1), (1, 1)))
    n_rows, n_columns, height, width = grid.shape
    return grid.transpose(0, 2, 1, 3).reshape(n_rows * height, n_columns * width)


def draw(est, test):
    """Samples with ten evaluations, and the paths of eight held-out digits from their noise."""
    samples = np.clip(np.rint(with_evaluations(est, 10).sample(96, random_state=0)), 0, 16).reshape(
        8, 12, 8, 8
    )
    path = est.integrate(est.inverse_transform(test[:8]), return_path=True)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    titles = f"96 samples, {est.n_function_evaluations_} evaluations", "from noise, and then straight"
    grids = samples, path.reshape(len(path), 8, 8, 8).swapaxes(0, 1)
    for axis, grid, title in zip(axes, grids, titles, strict=True):
        axis.imshow(tile(grid), cmap="gray_r", vmin=0, vmax=16)
        axis.set(title=title, xticks=[], yticks=[])
    figure.savefig("digits.png", dpi=100)
    print("wrote digits.png", flush=True)


def main():
    parser = make_parser(__doc__, seeds=3)
    parser.add_argument("--nsgf-only", action="store_true", help="leave out the peers")
    parser.add_argument("--defaults", action="store_true", help="our three with their default parameters")
    arguments = parser.parse_args()
    X, labels = load_digits(return_X_y=True)
    train, test, labels, _ = train_test_split(
        X.astype(np.float32), labels, test_size=397, stratify=labels, random_state=0
    )
    judge = Judge(train, test, labels)
    print("floor (training images): {:.3f} {:.2f} {:.3f}".format(*judge(train)), flush=True)
    figures = {}
    for seed in range(arguments.seeds):
        if arguments.defaults:
            methods, est = fit_defaults(train, seed)
        else:
            methods, est = fit_all(train, seed, arguments.nsgf_only)
        for name, (sample, spent, n_iter) in methods.items():
            for n_evaluations in N_EVALUATIONS:
                if n_evaluations in LEFT_OUT.get(name, []):
                    continue
                answer = judge(sample(n_evaluations))
                figures.setdefault(f"{name} {n_evaluations}", []).append([*answer, spent, n_iter])
        if seed == 0:
            draw(est, test)
        print(f"seed {seed} done", flush=True)
    print_row("mean ± std", ["energy distance", "Fréchet", "forest accuracy", "seconds", "iterations"], 18)
    for title, rows in figures.items():
        *scores, seconds, n_iter = np.transpose(rows)
        cells = [spread(values) for values in scores]
        print_row(title, [*cells, f"{seconds.mean():.0f}", f"{n_iter.mean():.0f}"], 18)


if __name__ == "__main__":
    main()
