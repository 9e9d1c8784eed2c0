"""
Correct a batch of cells
========================

The same tissue was sequenced twice. In the second batch every gene is read somewhat differently, and in each
type of cell in its own way; the types also have other shares. The types of the first batch are known. A flow
brings cells of the second batch to the first one, so that their expression can be compared.
"""

# %%
# Two batches
# -----------
#
# Five types of cells and 60 genes, normalised to the same total for each cell, and logarithms taken.

import matplotlib.pyplot as plt
import numpy as np
import ot
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsClassifier

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.domains import stack_domains

N_TYPES, N_GENES = 5, 60
SHARES = {"first": [0.3, 0.25, 0.2, 0.15, 0.1], "second": [0.2, 0.2, 0.2, 0.2, 0.2]}
rng = np.random.default_rng(0)
shared = rng.gamma(1, 1.5, N_GENES)
profiles = 0.1 + shared * np.exp(0.7 * rng.normal(size=(N_TYPES, N_GENES)))
effect = 0.5 * rng.normal(size=N_GENES) + 0.5 * rng.normal(size=(N_TYPES, N_GENES))


def sequence(n_cells, batch):
    types = rng.choice(N_TYPES, n_cells, p=SHARES[batch])
    log_rates = np.log(profiles[types]) + 0.2 * rng.normal(size=(n_cells, N_GENES))
    if batch == "second":
        log_rates += effect[types]
    depth = np.exp(0.3 * rng.normal(size=(n_cells, 1)))
    counts = rng.poisson(3 * depth * np.exp(log_rates))
    return np.log1p(100 * counts / counts.sum(axis=1, keepdims=True)), types


first, first_types = sequence(3000, "first")
second, _ = sequence(3000, "second")
new, new_types = sequence(1500, "second")
held_out, held_out_types = sequence(1500, "first")

# %%
# Fit
# ---
#
# All methods move the first 15 principal components. The batch with known types is the source, and
# ``inverse_transform`` brings cells of the second one back to it.
#
# A flow has to account for all mass: with other shares, it sends part of a type to another one. With
# ``label_mode="couple"`` each type goes to cells of the same type. Labels of the source are enough, as a plan
# between the two samples then guesses the others. Better ones come from a classifier, before any correction.

components = PCA(15).fit(np.vstack([first, second]))
Z_first, Z_second, Z_new = (components.transform(cells) for cells in (first, second, new))
classifier = KNeighborsClassifier(15).fit(Z_first, first_types)


def correct(label_mode, second_types=None):
    Z, labels, sample_domain = stack_domains(Z_first, Z_second, first_types, second_types)
    flow = SinkhornFlowTransport(label_mode=label_mode, standardize=False, random_state=0)
    return flow.fit(Z, labels, sample_domain=sample_domain).inverse_transform(Z_new)


corrected = {
    "not corrected": Z_new,
    "mean shift": Z_new + Z_first.mean(axis=0) - Z_second.mean(axis=0),
    "linear map": ot.da.LinearTransport().fit(Xs=Z_second, Xt=Z_first).transform(Xs=Z_new),
    "flow": correct("ignore"),
    "couple, first batch named": correct("couple"),
    "couple, both named": correct("couple", classifier.predict(Z_second)),
}

# %%
# How good is it?
# ---------------
#
# Accuracy is that of the classifier of the first batch on the corrected cells. The other two compare the
# cells of each type with held-out cells of the same type in the first batch, and are averaged over the types:
# the maximum mean discrepancy (MMD), and the distance of the means.

Z_held_out = components.transform(held_out)


def mean_discrepancy(X, Y):
    widths = (2, 1, 0.5, 0.1, 0.01, 0.005)
    kernels = [[rbf_kernel(A, B, g).mean() for A, B in [(X, X), (Y, Y), (X, Y)]] for g in widths]
    return np.mean([x + y - 2 * between for x, y, between in kernels])


def measures(Z, types):
    pairs = [(Z[types == each], Z_held_out[held_out_types == each]) for each in range(N_TYPES)]
    discrepancy = np.mean([mean_discrepancy(*pair) for pair in pairs])
    distance = np.mean([np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)) for a, b in pairs])
    return classifier.score(Z, types), 100 * discrepancy, distance


print(f"{'':26}{'accuracy':>10}{'100 x MMD':>12}{'mean':>10}")
rows = {name: (Z, new_types) for name, Z in corrected.items()}
rows["the first batch itself"] = components.transform(first[:1500]), first_types[:1500]
for name, (Z, types) in rows.items():
    print("{:26}{:10.3f}{:12.2f}{:10.3f}".format(name, *measures(Z, types)))

# %%
# Over five seeds the MMD is 0.44 to 0.51 with both batches named, 0.55 to 0.89 with the first one named, 2.0
# to 2.7 with the plain flow, and 4.4 to 6.9 with the linear map; chance gives 0.33 to 0.38.
#
# Note the first column. To name cells no correction was needed: in 60 genes the types are further apart than
# the batches (accuracy 0.996 to 1.000). The plain flow does harm, 0.83 to 0.88, because the shares differ,
# and so does the linear map a little, 0.96 to 0.995. So name the cells first, and correct them then.

# %%
# Two principal components of the first batch, grey, and new cells of the second, coloured by their true type.

view = PCA(2).fit(Z_first)
figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True, layout="constrained")
for ax, name in zip(axes, ["not corrected", "linear map", "couple, both named"], strict=True):
    ax.scatter(*view.transform(Z_first).T, s=4, color="lightgrey")
    ax.scatter(*view.transform(corrected[name]).T, s=4, c=new_types, cmap="Set1", vmax=8)
    ax.set(title=name, xticks=[], yticks=[])
figure.savefig("batch_correction.png", dpi=120)
plt.show()
