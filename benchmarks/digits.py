"""New digits from 1 400 handwritten ones: NSGF++ beside flow matching given the same seconds.

    pip install torchcfm --no-deps
    python benchmarks/digits.py --seeds 3

scikit-learn's digits, 8 x 8 pixels; 397 images are held out for the test. Every method has the same
network, a perceptron of three layers of 512, the same normal source and the seconds of the NSGF++ fit, its
Sinkhorn flows and couplings included. Samples are rounded to the 17 grey values and compared with the
held-out images:

- energy distance, in units of the root mean square deviation of a pixel;
- Fréchet distance in the last hidden layer (32 units) of a perceptron that tells the digits apart;
- accuracy of a random forest that tells samples from held-out images, 0.5 being the best; the mean of
  several draws of as many samples.

The floor is the same figures for the training images.
"""

import argparse
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from peers import train_torchcfm
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus
from sklearn_nsgf._validation import FlowScaling
from sklearn_nsgf.flow import odeint
from sklearn_nsgf.metrics import energy_distance, frechet_distance
from sklearn_nsgf.networks import make_network

OPTIONS = {"hidden_layer_sizes": (512, 512, 512), "learning_rate": 0.002, "standardize": False}
N_EVALUATIONS = [5, 10, 20, 50, 100]
N_SAMPLES = 2000


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
    est = NSGFPlusPlus(**OPTIONS, max_iter=2500, random_state=seed, **options)
    start = time.perf_counter()
    est.fit(train)
    seconds = time.perf_counter() - start

    def sample(n_evaluations):
        est.set_params(n_straight_steps=n_evaluations - est.n_sinkhorn_steps)
        return est.sample(N_SAMPLES, random_state=seed)

    return est, sample, seconds


def flow_matching(train, seed, coupling, seconds):
    """Ours, with as many iterations as the seconds are enough for."""
    shares = {"independent": (1024, 1 / 4), "exact": (256, 1)}
    coupling_batch_size, couplings_an_iteration = shares[coupling]

    def fit(max_iter):
        est = FlowMatchingTransport(
            **OPTIONS,
            coupling=coupling,
            coupling_batch_size=coupling_batch_size,
            n_couplings=int(max_iter * couplings_an_iteration),
            max_iter=max_iter,
            random_state=seed,
        )
        start = time.perf_counter()
        est.fit(train)
        return est, time.perf_counter() - start

    _, trial = fit(400)
    est, spent = fit(int(400 * seconds / trial))

    def sample(n_evaluations):
        return est.set_params(n_steps=n_evaluations).sample(N_SAMPLES, random_state=seed)

    return sample, spent, est.n_iter_


def torchcfm(train, seed, name, seconds):
    scaling = FlowScaling(None, train, per_feature=False)
    std = torch.tensor(scaling.noise_std, dtype=torch.float32)
    network, n_iter = train_torchcfm(
        name,
        make_network((train.shape[1],), hidden_layer_sizes=OPTIONS["hidden_layer_sizes"], seed=seed),
        lambda n: std * torch.randn(n, len(std)),
        torch.tensor(scaling.encode(train, 1.0)),
        seconds=seconds,
        seed=seed,
        learning_rate=OPTIONS["learning_rate"],
    )

    @torch.no_grad()
    def sample(n_evaluations):
        noise = std * torch.randn(N_SAMPLES, len(std), generator=torch.Generator().manual_seed(seed))
        return scaling.decode(odeint(network, noise, n_steps=n_evaluations).numpy(), 1.0, np.float32)

    return sample, seconds, n_iter


def tile(grid):
    """One picture of rows and columns of images, with margins."""
    grid = np.pad(grid, ((0, 0), (0, 0), (1, 1), (1, 1)))
    n_rows, n_columns, height, width = grid.shape
    return grid.transpose(0, 2, 1, 3).reshape(n_rows * height, n_columns * width)


def draw(est, samples):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    axes[0].imshow(tile(samples[:96].reshape(8, 12, 8, 8)), cmap="gray_r", vmin=0, vmax=16)
    axes[0].set_title(f"96 samples, {est.n_function_evaluations_} evaluations")
    noise = est._scaling.decode(
        np.random.default_rng(0).standard_normal((8, 64)) * est._scaling.noise_std, 0.0, np.float64
    )
    path = est.integrate(noise, return_path=True)
    ways = path.reshape(len(path), 8, 8, 8).swapaxes(0, 1)
    axes[1].imshow(tile(ways), cmap="gray_r", vmin=0, vmax=16)
    axes[1].set_title(f"from noise, {est.n_sinkhorn_steps} Sinkhorn steps, then straight")
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    figure.savefig("digits.png", dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nsgf-only", action="store_true", help="leave out the peers")
    arguments = parser.parse_args()
    n_seeds = arguments.seeds
    X, labels = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    train, test, labels, _ = train_test_split(X, labels, test_size=397, stratify=labels, random_state=0)
    judge = Judge(train, test, labels)
    floor = judge(train)
    print(f"floor (training images): {floor[0]:.3f} {floor[1]:.2f} {floor[2]:.3f}", flush=True)
    figures = {}
    for seed in range(n_seeds):
        est, sample, seconds = nsgf_plus_plus(train, seed)
        if seed == 0:
            draw(est.set_params(n_straight_steps=8), np.clip(np.rint(sample(10)), 0, 16))
        methods = {"NSGF++ direct": (sample, seconds, est.n_iter_)}
        est, sample, spent = nsgf_plus_plus(train, seed, transition="predicted", n_sinkhorn_steps=5)
        methods["NSGF++ predicted"] = sample, spent, est.n_iter_
        if not arguments.nsgf_only:
            methods["I-CFM, ours"] = flow_matching(train, seed, "independent", seconds)
            methods["OT-CFM, ours"] = flow_matching(train, seed, "exact", seconds)
            for name in ("I-CFM", "OT-CFM"):
                methods[f"{name}, torchcfm"] = torchcfm(train, seed, name, seconds)
        for name, (sample, spent, n_iter) in methods.items():
            for n_evaluations in N_EVALUATIONS:
                if name == "NSGF++ predicted" and n_evaluations == 5:
                    continue
                answer = judge(sample(n_evaluations))
                figures.setdefault((name, n_evaluations), []).append([*answer, spent, n_iter])
        print(f"seed {seed} done", flush=True)
    print(
        f"energy distance | Fréchet distance | forest accuracy, mean ± standard deviation of {n_seeds} seeds"
    )
    for (name, n_evaluations), rows in figures.items():
        mean, std = np.mean(rows, axis=0), np.std(rows, axis=0)
        cells = " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean[:3], std[:3], strict=True))
        print(f"{name:18} {n_evaluations:4d}: {cells} | {mean[3]:.0f} s, {mean[4]:.0f} its")
    print("wrote digits.png")


if __name__ == "__main__":
    main()
