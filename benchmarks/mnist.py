"""How like MNIST are images from noise: NSGF++ beside flow matching, with one U-Net and one budget of time?

    python benchmarks/mnist.py --data DIR --budget 2.5 --flows 256 --batch-size 256 --samples 5000 \
        --methods NSGF++ OT-CFM                                                 # a GPU, about 8 minutes
    python benchmarks/mnist.py --data DIR --budget 8 --cifar --width 64                    # the same
    OMP_NUM_THREADS=1 python benchmarks/mnist.py --data DIR --budget 10 --width 16 --no-attention \
        --samples 2000 --evaluations 5 10 20 100 --methods NSGF++ OT-CFM --seeds 3         # one core

DIR holds the four ``idx`` files of MNIST, gzipped, in ``mnist/``, or CIFAR-10 in ``cifar10/``. "I-CFM"
and "OT-CFM" are FlowMatchingTransport with independent and exact coupling. Every fit, with all that it
simulates and couples, takes the budget: two short fits tell how many iterations that is. Seconds are those of
all threads together on a CPU, and of the clock on a GPU.

Printed is, for several numbers of evaluations, the Fréchet distance between samples and the 10 000 test
images in the features (64 units) of a small convolutional classifier that is trained here on the training
images: mean and spread over the seeds, and the seconds of sampling. It is not an FID, whose features are
those of an Inception network, and can be compared with nothing but the other figures of one run. The floor is
that of as many training images, the start that of noise. Samples of the first seed are drawn in mnist.png.
"""

import tarfile
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from _harness import make_parser, print_row, read_idx, spread, with_evaluations
from PIL import Image
from torch import nn

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus
from sklearn_nsgf.metrics import frechet_distance
from sklearn_nsgf.networks import UNet

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Other work beside it takes no seconds of the CPU's own.
CLOCK = time.perf_counter if DEVICE == "cuda" else time.process_time


def read_mnist(folder):
    """Training images, test images and training labels."""
    names = "train-images-idx3", "t10k-images-idx3", "train-labels-idx1"
    return [read_idx(folder / "mnist" / f"{name}-ubyte.gz") for name in names]


def read_cifar(folder):
    """The same for CIFAR-10, from JPEG files: lossy, so that the figures are of these images only."""
    parts = {"train": [], "test": []}
    with tarfile.open(folder / "cifar10" / "cifar10_jpg.tar.xz") as archive:
        for member in archive:
            if member.name.endswith(".jpg"):
                part, label, _ = member.name.split("/")[-3:]
                image = np.asarray(Image.open(archive.extractfile(member)).convert("RGB"))
                parts[part].append((image, label))
    classes = sorted({label for _, label in parts["train"]})
    train, test = (np.stack([image for image, _ in parts[part]]) for part in ("train", "test"))
    labels = np.array([classes.index(label) for _, label in parts["train"]])
    # The archive has one class after the other, and the floor is that of the first images.
    order = np.random.default_rng(0).permutation(len(train))
    return train[order], test, labels[order]


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


def train_classifier(images, labels, n_iter=1500):
    torch.manual_seed(0)
    classifier = Classifier(as_tensor(images[:1]).shape[1]).to(DEVICE)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=2e-3)
    rng = np.random.default_rng(0)
    for _ in range(n_iter):
        rows = rng.integers(len(images), size=128)
        truth = torch.from_numpy(labels[rows].astype(int)).to(DEVICE)
        loss = nn.functional.cross_entropy(classifier(as_tensor(images[rows])), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.eval()


def as_tensor(images):
    channels_first = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    return torch.from_numpy(channels_first.astype(np.float32) / 255).to(DEVICE)


@torch.no_grad()
def features(classifier, images):
    chunks = np.array_split(images, max(1, len(images) // 500))
    return np.concatenate([classifier.features(as_tensor(chunk)).cpu().numpy() for chunk in chunks])


def make(name, network, n_flows, max_iter, batch_size, seed):
    """An estimator whose pairs are used about four times each."""
    n_paired = batch_size // 2 if name == "NSGF++" else batch_size
    options = {
        "network": network,
        "max_iter": max_iter,
        "batch_size": batch_size,
        "n_couplings": max(1, max_iter * n_paired // (4 * 512)),
        "random_state": seed,
    }
    if name == "NSGF++":
        return NSGFPlusPlus(**options, n_flows=n_flows)
    if name == "NSGF++ predicted":
        return NSGFPlusPlus(**options, n_flows=n_flows, transition="predicted", n_sinkhorn_steps=5)
    return FlowMatchingTransport(**options, coupling={"I-CFM": "independent", "OT-CFM": "exact"}[name])


def fit_for(seconds, images, *options):
    """Fit for about so many seconds; return the estimator and the seconds it took."""
    name, network, n_flows, batch_size, seed = options

    def fit(max_iter, images=images):
        est, start = make(name, network, n_flows, max_iter, batch_size, seed), CLOCK()
        return est.fit(images), CLOCK() - start

    few, many = 128, 256  # NSGF++ makes 2 couplings for the one and 4 for the other
    if DEVICE == "cuda":
        fit(4, images[:2000])  # compiles and loads what a first call does
        few, many = 40, 120
    base, longer = fit(few)[1], fit(many)[1]
    each = (longer - base) / (many - few)
    return fit(max(many, few + int((seconds - base) / each)))


def start_of(est, n_samples):
    """What the flow starts from, as images."""
    space = est.model_.space
    noise = space.frame.draw_noise(n_samples, np.random.RandomState(0))
    return space.decode(noise[None], np.zeros(1), np.dtype(np.uint8))[0]


def picture(samples):
    """64 images as one."""
    return np.concatenate([np.concatenate(samples[k : k + 8], axis=1) for k in range(0, 64, 8)])


def main():
    parser = make_parser(__doc__, seeds=1, data="required")
    parser.add_argument("--budget", type=float, default=10, help="minutes for each fit")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cifar", action="store_true", help="CIFAR-10 from its JPEG files instead")
    parser.add_argument("--width", type=int, default=32, help="channels of the U-Net's first level")
    parser.add_argument("--no-attention", action="store_true")
    parser.add_argument("--flows", type=int, default=32, help="of NSGF++")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[5, 10, 20, 60, 100])
    parser.add_argument("--methods", nargs="+", default=["NSGF++", "I-CFM", "OT-CFM"])
    arguments = parser.parse_args()
    train, test, labels = (read_cifar if arguments.cifar else read_mnist)(arguments.data)
    n_samples, batch_size = arguments.samples, arguments.batch_size
    classifier = train_classifier(train, labels)
    test_features = features(classifier, test)

    def distance(images):
        return frechet_distance(features(classifier, images), test_features)

    def network(image_shape):
        levels = () if arguments.no_attention else (1,)
        return UNet(image_shape, n_channels=arguments.width, attention_levels=levels)

    print(f"floor ({n_samples} training images): {distance(train[:n_samples]):.2f}", flush=True)
    n_methods = len(arguments.methods)
    figure, axes = plt.subplots(1, n_methods, figsize=(4 * n_methods, 4.3), squeeze=False)
    for name, axis in zip(arguments.methods, axes[0], strict=True):
        distances, seconds = {}, {}
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            est, spent = fit_for(
                60 * arguments.budget, train, name, network, arguments.flows, batch_size, seed
            )
            print(f"{name}, seed {seed}: {est.n_iter_} iterations, {spent:.0f} s", flush=True)
            print_row("  start", [f"{distance(start_of(est, n_samples)):.2f}"])
            for n in arguments.evaluations:
                if name == "NSGF++ predicted" and n == 5:
                    continue
                start = CLOCK()
                samples = with_evaluations(est, n).sample(n_samples, random_state=seed)
                seconds.setdefault(n, []).append(CLOCK() - start)
                distances.setdefault(n, []).append(distance(samples))
                print_row(f"  {n} evaluations", [f"{distances[n][-1]:.2f}"])
                if n == 10 and seed == arguments.first_seed:
                    axis.imshow(picture(samples), cmap="gray", vmin=0, vmax=255)
                    axis.set(title=f"{name}, 10 evaluations", xticks=[], yticks=[])
        print(f"{name}, {arguments.seeds} seed(s)")
        for n in distances:
            print_row(f"  {n} evaluations", [spread(distances[n], 2), f"{np.mean(seconds[n]):.0f} s"])
        figure.savefig("mnist.png", dpi=100)
    print("wrote mnist.png")


if __name__ == "__main__":
    main()
