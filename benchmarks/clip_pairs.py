"""Do unpaired flows from image to text embeddings close the modality gap, and do pairs survive it?

    python benchmarks/clip_pairs.py --data DIR --seeds 5

DIR/clip_flickr_pairs holds image.npy and text.npy, embeddings by CLIP of 1 000 photographs from Flickr and of
their captions: 512 features, unit norm, row i of one belongs to row i of the other. For each seed 800 pairs
are drawn for training, their order is lost, and the images are moved to the texts. The other 200 pairs are
held out.

Printed is how often a moved image's own text is the nearest of the 200 held-out texts, or among the nearest
5, by cosine; the same by cosine about the mean of the training texts ("centred"); the distance between the
means of moved images and texts; and 1 000 times their energy distance; mean and spread over the seeds. The
floor of the energy distance is zero. No method sees a pair: what it loses of the untouched recall it pays for
the gap. "By plan" ranks the texts by an entropic plan between all moved images and all texts that are looked
through, centred: a text that is near to every image is then nearest to few. This needs all images at once,
and one text for each.

In a second table all 1 000 images move to all 1 000 texts, their order lost too, and each image looks for its
text among the 1 000. The results, one value a line, go to results/clip_pairs.csv.

Ours have their defaults. On 800 pairs NSGF has once more ("forced") no early stopping, with a quarter of the
default steps and minibatches: early stopping keeps no network where none is clearly better than the map it
starts from, 0 steps in the table. Peers: the shift of the mean, the linear map (Ledoit-Wolf), the map of
quantiles, and POT's linear map, exact transport and entropic transport.
"""

import warnings
from collections import defaultdict

import numpy as np
import ot
import torch
from _harness import ResultsFile, force_network, known_maps, make_parser, print_row, spread, timed_fit

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf.flow import sinkhorn_potentials
from sklearn_nsgf.metrics import energy_distance

N_TRAIN = 800
# Its square, .02, is a temperature of cosines.
PLAN_BLUR = 0.14
MEASURES = ("R@1", "R@5", "R@1 centred", "R@1 by plan", "gap of means", "energy x 1000")
OURS = {"NSGF": SinkhornFlowTransport, "NSGF++": NSGFPlusPlus, "FM": FlowMatchingTransport}
POT = {
    "POT linear": ot.da.LinearTransport(),
    "POT exact": ot.da.EMDTransport(),
    "POT Sinkhorn": ot.da.SinkhornTransport(reg_e=0.03, norm="median"),
}


def recall(moved, texts, centre, by_plan=False):
    """Shares of moved images whose own text is the nearest, and among the nearest five."""
    moved, texts = (rows - centre for rows in (moved, texts))
    moved, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (moved, texts))
    nearness = moved @ texts.T
    if by_plan:
        potentials = sinkhorn_potentials(torch.tensor(moved), torch.tensor(texts), blur=PLAN_BLUR)
        nearness = nearness + potentials.g.numpy()
    n_nearer = (nearness > np.diag(nearness)[:, None]).sum(axis=1)
    return (n_nearer < 1).mean(), (n_nearer < 5).mean()


def measure(moved, texts, centre):
    found = recall(moved, texts, 0), recall(moved, texts, centre)
    return {
        "R@1": found[0][0],
        "R@5": found[0][1],
        "R@1 centred": found[1][0],
        "R@5 centred": found[1][1],
        "R@1 by plan": recall(moved, texts, centre, by_plan=True)[0],
        "gap of means": np.linalg.norm(moved.mean(axis=0) - texts.mean(axis=0)),
        "energy x 1000": 1000 * energy_distance(moved, texts),
    }


def moves(images, texts, new, seed, *, with_forced):
    """Yield names, the new images moved, and details of our fits."""
    for name, move in known_maps(images, texts).items():
        yield name, move(new), {}
    for name, transport in POT.items():
        yield name, transport.fit(Xs=images, Xt=texts).transform(Xs=new), {}
    ours = {name: estimator(random_state=seed) for name, estimator in OURS.items()}
    if with_forced:
        ours["NSGF, forced"] = force_network(SinkhornFlowTransport(random_state=seed))
    for name, estimator in ours.items():
        est, seconds = timed_fit(estimator, images, texts)
        yield name, est.transform(new), {"seconds": seconds, "steps": est.model_.n_kept}


def print_table(title, table):
    """Print table[method][quantity], a list of values for each."""
    print_row(title, [*MEASURES, "seconds", "steps"])
    for method, found in table.items():
        cells = [spread(found[name], 1 if name == "energy x 1000" else 3) for name in MEASURES]
        if "seconds" in found:
            cells += [spread(found["seconds"], 1), f"{np.mean(found['steps']):.0f}"]
        print_row(method, cells)


def main():
    arguments = make_parser(__doc__, seeds=5, data="required").parse_args()
    warnings.simplefilter("ignore")
    images, texts = (
        np.load(arguments.data / f"clip_flickr_pairs/{name}.npy").astype(float) for name in ("image", "text")
    )
    results = ResultsFile("texts", "method", "seed", "quantity", "value")
    for title in ("held out", "all"):
        table = defaultdict(lambda: defaultdict(list))
        for seed in range(arguments.seeds):
            rng = np.random.default_rng(seed)
            train, new = np.split(rng.permutation(len(images)), [N_TRAIN])
            if title == "all":
                train = new = np.arange(len(images))
            samples = images[train], texts[rng.permutation(train)]
            for method, moved, details in moves(*samples, images[new], seed, with_forced=title != "all"):
                found = measure(moved, texts[new], samples[1].mean(axis=0)) | details
                for quantity, value in found.items():
                    results.write(title, method, seed, quantity, value)
                    table[method][quantity].append(value)
        print_table(title, table)


if __name__ == "__main__":
    main()
