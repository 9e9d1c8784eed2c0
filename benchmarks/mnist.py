"""MNIST from noise: NSGF++ beside flow matching, one U-Net and one wall-clock budget for all.

    python benchmarks/mnist.py --data DIR --budget 8                                       # a GPU
    python benchmarks/mnist.py --data DIR --budget 8 --cifar --width 64                    # the same
    python benchmarks/mnist.py --data DIR --budget 10 --width 16 --no-attention --samples 2000 \
        --evaluations 5 10 20 100                                                          # two cores

DIR holds the four ``idx`` files of MNIST, gzipped, in ``mnist/``. "I-CFM" and "OT-CFM" are
FlowMatchingTransport with independent and exact coupling. Every fit, with all that it simulates and couples,
takes the budget: two short fits tell how many iterations that is.

The figure is the Fréchet distance between samples and the 10 000 test images in the features (64 units)
of a small convolutional classifier that is trained here on the training images. It is not an FID, whose
features are those of an Inception network, and can be compared with nothing but the other figures of one
run. The floor is that of as many training images.
"""

import argparse
import gzip
import math
import os
import tarfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torch import nn

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus
from sklearn_nsgf._base import CHUNK_SIZE
from sklearn_nsgf._validation import find_layout
from sklearn_nsgf.metrics import frechet_distance
from sklearn_nsgf.networks import ImageRows, UNet


def read_mnist(folder):
    """Training images, test images and training labels."""

    def read(name, offset):
        with gzip.open(Path(folder) / "mnist" / f"{name}-ubyte.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    images = [read(f"{part}-images-idx3", 16).reshape(-1, 28, 28) for part in ("train", "t10k")]
    return *images, read("train-labels-idx1", 8)


def read_cifar(folder):
    """The same for CIFAR-10, from JPEG files: lossy, so that the figures are of these images only."""
    parts = {"train": [], "test": []}
    with tarfile.open(Path(folder) / "cifar10" / "cifar10_jpg.tar.xz") as archive:
        for member in archive:
            if member.name.endswith(".jpg"):
                part, label, _ = member.name.split("/")[-3:]
                image = np.asarray(Image.open(archive.extractfile(member)).convert("RGB"))
                parts[part].append((image, label))
    classes = sorted({label for _, label in parts["train"]})
    train, test = (np.stack([image for image, _ in parts[part]]) for part in ("train", "test"))
    return train, test, np.array([classes.index(label) for _, label in parts["train"]])


class Classifier(nn.Module):
    """Three convolutions, 64 features and 10 classes."""

    def __init__(self, n_channels):
        super().__init__()
        layers = []
        for n_inputs, n_outputs in [(n_channels, 16), (16, 32), (32, 64)]:
            layers += [nn.Conv2d(n_inputs, n_outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        pooled = [nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.Linear(64 * 9, 64), nn.ReLU()]
        self.features = nn.Sequential(*layers, *pooled)
        self.last = nn.Linear(64, 10)

    def forward(self, images):
        return self.last(self.features(images))


def train_classifier(images, labels, device, n_iter=1500):
    torch.manual_seed(0)
    classifier = Classifier(as_tensor(images[:1], device).shape[1]).to(device)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=2e-3)
    rng = np.random.default_rng(0)
    for _ in range(n_iter):
        rows = rng.integers(len(images), size=128)
        loss = nn.functional.cross_entropy(
            classifier(as_tensor(images[rows], device)), torch.from_numpy(labels[rows].astype(int)).to(device)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.eval()


def as_tensor(images, device):
    channels_first = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    return torch.from_numpy(channels_first.astype(np.float32) / 255).to(device)


@torch.no_grad()
def features(classifier, images, device):
    chunks = np.array_split(images, max(1, len(images) // 500))
    return np.concatenate([classifier.features(as_tensor(chunk, device)).cpu().numpy() for chunk in chunks])


def make(name, network, max_iter, batch_size, seed):
    """An estimator whose pairs are used about four times each."""
    n_couplings = max(1, max_iter * batch_size // (4 * 512))
    options = {
        "network": network,
        "max_iter": max_iter,
        "batch_size": batch_size,
        "n_couplings": n_couplings,
        "random_state": seed,
    }
    if name == "NSGF++":
        return NSGFPlusPlus(**options)
    if name == "NSGF++ predicted":
        return NSGFPlusPlus(**options, transition="predicted", n_sinkhorn_steps=5)
    return FlowMatchingTransport(**options, coupling={"I-CFM": "independent", "OT-CFM": "exact"}[name])


def fit_for(seconds, name, network, images, batch_size, seed):
    """Fit for about so many seconds; return the estimator and the seconds it took."""

    def timed(max_iter):
        est = make(name, network, max_iter, batch_size, seed)
        start = time.perf_counter()
        est.fit(images)
        return est, time.perf_counter() - start

    if torch.cuda.is_available():
        timed(4)  # compiles and loads what a first call does
    few, many = 32, 96
    base, longer = timed(few)[1], timed(many)[1]
    each = (longer - base) / (many - few)
    return timed(max(many, few + int((seconds - base) / each)))


def training_overhead(images, network, batch_size, n_repeats=3, n_iter=20):
    """Seconds of an iteration of a fit over those of the bare forward and backward pass, interleaved."""
    image_shape = find_layout(images.shape[1:], None, None).image_shape
    ratios = []
    for _ in range(n_repeats):
        seconds = []
        for max_iter in (n_iter, 3 * n_iter):
            est = make("I-CFM", network, max_iter, batch_size, 0).set_params(n_couplings=8)
            start = time.perf_counter()
            est.fit(images[:5000])
            seconds.append(time.perf_counter() - start)
        bare = ImageRows(network(image_shape), image_shape).to(est.device_).train()
        rows = torch.randn(batch_size, math.prod(image_shape), device=est.device_)
        t = torch.rand(batch_size, device=est.device_)
        for k in range(3 + 2 * n_iter):
            if k == 3:
                bare(t, rows).sum().item()
                start = time.perf_counter()
            bare(t, rows).square().mean().backward()
        bare(t[:1], rows[:1]).sum().item()
        ratios.append((seconds[1] - seconds[0]) / (time.perf_counter() - start))
    return ratios


def set_evaluations(est, n_evaluations):
    if isinstance(est, NSGFPlusPlus):
        return est.set_params(n_straight_steps=n_evaluations - est.n_sinkhorn_steps)
    return est.set_params(n_steps=n_evaluations)


def transform_overhead(est, images, n_repeats=3):
    """Seconds of `transform` at 20 evaluations over those of the bare network, interleaved."""
    network = ImageRows(est.network_, est._layout.image_shape).to(est.device_).eval()
    n_features = images[0].size
    rows = torch.randn(CHUNK_SIZE // n_features, n_features, device=est.device_)
    t = torch.zeros(len(rows), device=est.device_)
    n_calls = -(-len(images) // len(rows)) * 20
    ratios = []
    for _ in range(n_repeats):
        start = time.perf_counter()
        with torch.no_grad():
            for _ in range(n_calls):
                answer = network(t, rows)
        answer.sum().item()
        bare = time.perf_counter() - start
        start = time.perf_counter()
        set_evaluations(est, 20).transform(images)
        ratios.append((time.perf_counter() - start) / bare)
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SKLEARN_NSGF_DATA"), help="folder of the files")
    parser.add_argument("--budget", type=float, default=10, help="minutes for each fit")
    parser.add_argument("--cifar", action="store_true", help="CIFAR-10 from its JPEG files instead")
    parser.add_argument("--width", type=int, default=32, help="channels of the U-Net's first level")
    parser.add_argument("--no-attention", action="store_true")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[5, 10, 20, 60, 100])
    parser.add_argument("--methods", nargs="+", default=["NSGF++", "I-CFM", "OT-CFM"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train, test, labels = (read_cifar if arguments.cifar else read_mnist)(arguments.data)
    classifier = train_classifier(train, labels, device)
    test_features = features(classifier, test, device)
    floor = frechet_distance(features(classifier, train[: arguments.samples], device), test_features)
    print(f"floor ({arguments.samples} training images): {floor:.2f}", flush=True)

    def network(image_shape):
        levels = () if arguments.no_attention else (1,)
        return UNet(image_shape, n_channels=arguments.width, attention_levels=levels)

    figure, axes = plt.subplots(1, len(arguments.methods), figsize=(4 * len(arguments.methods), 4.3))
    for name, axis in zip(arguments.methods, np.atleast_1d(axes), strict=True):
        est, seconds = fit_for(
            60 * arguments.budget, name, network, train, arguments.batch_size, arguments.seed
        )
        print(f"{name}: {est.n_iter_} iterations, {seconds:.0f} s", flush=True)
        for n_evaluations in arguments.evaluations:
            if name == "NSGF++ predicted" and n_evaluations == 5:
                continue
            start = time.perf_counter()
            samples = set_evaluations(est, n_evaluations).sample(arguments.samples, random_state=0)
            seconds = time.perf_counter() - start
            distance = frechet_distance(features(classifier, samples, device), test_features)
            print(f"  {n_evaluations:4d} evaluations: {distance:.2f} ({seconds:.0f} s)", flush=True)
            if n_evaluations == 10:
                rows = [np.concatenate(samples[start : start + 8], axis=1) for start in range(0, 64, 8)]
                axis.imshow(np.concatenate(rows), cmap="gray", vmin=0, vmax=255)
                axis.set(title=f"{name}, 10 evaluations", xticks=[], yticks=[])
        if name == "I-CFM":
            overheads = {
                "transform over bare network": transform_overhead(est, train[: arguments.samples]),
                "training over bare network": training_overhead(train, network, arguments.batch_size),
            }
            for what, ratios in overheads.items():
                print(f"  {what}: {', '.join(f'{ratio:.3f}' for ratio in ratios)}", flush=True)
    figure.savefig("mnist.png", dpi=100)
    print("wrote mnist.png")


if __name__ == "__main__":
    main()
