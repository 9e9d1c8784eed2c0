"""
Predict how cells respond to a drug
===================================

A cell is destroyed when it is measured. There are control cells and treated cells, and no cell is both. A
flow from one to the other predicts the response of each control cell, also of new ones. The question is as in
CellOT [1]_, and so are the measures; the cells are made.
"""

# %%
# Made cells
# ----------
#
# Six types of cells and 60 genes. Half of the cells divide. The drug acts on four of the types, and only on
# cells that divide. Counts are normalised to the same total for each cell, and logarithms taken.

import matplotlib.pyplot as plt
import numpy as np
import ot
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import rbf_kernel

from sklearn_nsgf import SinkhornFlowTransport

N_TYPES, N_GENES = 6, 60
rng = np.random.default_rng(0)
profiles = 0.1 + rng.gamma(1, 1.5, (N_TYPES, N_GENES))
division = np.zeros(N_GENES)
division[40:50] = 0.8
response = np.zeros((N_TYPES, N_GENES))
response[:2, :8] = 1.5
response[2:4, 8:16] = 1.5


def measure(n_cells, is_treated):
    types = np.arange(n_cells) % N_TYPES
    divides = rng.random(n_cells) < 0.5
    log_rates = np.log(profiles[types]) + np.where(divides, 1, -1)[:, np.newaxis] * division
    log_rates += 0.2 * rng.normal(size=log_rates.shape)
    if is_treated:
        log_rates += divides[:, np.newaxis] * response[types]
    depth = 4 * np.exp(0.3 * rng.normal(size=(n_cells, 1)))
    counts = rng.poisson(depth * np.exp(log_rates))
    return np.log1p(100 * counts / counts.sum(axis=1, keepdims=True)), types


control, _ = measure(3000, is_treated=False)
treated, _ = measure(3000, is_treated=True)
new_control, types = measure(1200, is_treated=False)
new_treated, _ = measure(1200, is_treated=True)
other_treated, _ = measure(1200, is_treated=True)

# %%
# Fit
# ---
#
# The flow moves the first 15 principal components of all cells. They share a unit, and those with more spread
# should count for more: ``standardize=False``. What the components miss stays with each cell.

components = PCA(15).fit(np.vstack([control, treated]))
to_components = components.transform
flow = SinkhornFlowTransport(standardize=False, random_state=0)
flow.fit(to_components(control), to_components(treated))
change = flow.transform(to_components(new_control)) - to_components(new_control)

predictions = {
    "control cells": new_control,
    "mean shift": new_control + treated.mean(axis=0) - control.mean(axis=0),
    "linear map": ot.da.LinearTransport(reg=1e-6).fit(Xs=control, Xt=treated).transform(Xs=new_control),
    "flow": new_control + change @ components.components_,
    "other treated cells": other_treated,
}

# %%
# How good is it?
# ---------------
#
# All measures compare with treated cells that no method has seen: the maximum mean discrepancy (MMD) for all
# genes together, averaged over six widths of the kernel; the distance of the mean expressions; the
# correlation of the mean changes, gene by gene; and the distance of the means within each type, averaged. No
# method knows the types. The last row is what chance allows.


def mean_discrepancy(X, Y):
    widths = (2, 1, 0.5, 0.1, 0.01, 0.005)
    kernels = [[rbf_kernel(A, B, g).mean() for A, B in [(X, X), (Y, Y), (X, Y)]] for g in widths]
    return np.mean([x + y - 2 * between for x, y, between in kernels])


def measures(cells):
    change, true_change = (each.mean(axis=0) - new_control.mean(axis=0) for each in (cells, new_treated))
    within = [
        np.linalg.norm(cells[types == each].mean(axis=0) - new_treated[types == each].mean(axis=0))
        for each in range(N_TYPES)
    ]
    correlation = np.corrcoef(change, true_change)[0, 1] if change.any() else np.nan
    distance = np.linalg.norm(change - true_change)
    return 1000 * mean_discrepancy(cells, new_treated), distance, correlation, np.mean(within)


print(f"{'':20}{'1000 x MMD':>12}{'mean':>12}{'correlation':>12}{'within types':>14}")
for name, cells in predictions.items():
    print("{:20}{:12.2f}{:12.3f}{:12.3f}{:14.3f}".format(name, *measures(cells)))

# %%
# Over five seeds the flow's MMD is 1.16 to 1.30, that of the linear map 1.89 to 2.14, and chance gives 1.03
# to 1.14. Within the types the flow is off by 0.24 to 0.33, the linear map by 0.34 to 0.39. In the mean of
# all cells nothing beats the mean shift: its distance is 0.10 to 0.14, and the flow's 0.10 to 0.12. A measure
# of means alone would find no reason for anything else.

# %%
# Cells of the four types, and the genes that the drug acts on in each. Those that divide respond and the
# others do not. The mean shift moves all cells alike, and the linear map makes one broad group out of two.

responding_genes = np.where(types[:, np.newaxis] < 2, np.arange(8), np.arange(8, 16))
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for ax, names in zip(axes, [("mean shift", "linear map"), ("flow",)], strict=True):
    for name in ("control cells", *names, "other treated cells"):
        expression = np.take_along_axis(predictions[name], responding_genes, axis=1).mean(axis=1)
        style = {"histtype": "step", "linewidth": 2}
        if "cells" in name:
            style = {"alpha": 0.4, "color": "grey" if "control" in name else "tab:green"}
        ax.hist(expression[types < 4], np.linspace(0, 2.5, 40), density=True, label=name, **style)
    ax.set(xlabel="mean expression of the genes that respond", yticks=[])
    ax.legend()
figure.savefig("perturbation.png", dpi=120)
plt.show()

# %%
# .. [1] Bunne et al. Learning single-cell perturbation responses using neural optimal transport. Nature
#    Methods 20, 2023.
