"""
Few rows
========

How many rows does a flow need? It starts at the linear map between source and target, and keeps that unless
held-out rows show that a network brings them closer. Of fewer than 500 rows each is held out in turn. With
few rows the answer is therefore never much worse than the linear map. With more rows it gets better where the
map is not linear.
"""

# %%
# The target is bent: the second feature has a part of the square of the first. The source is normal.

import warnings

import matplotlib.pyplot as plt
import numpy as np

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.metrics import energy_distance

rng = np.random.default_rng(0)


def draw(n_rows):
    source, target = rng.normal(size=(2, n_rows, 2))
    target[:, 1] += 0.7 * target[:, 0] ** 2
    return source, target


new_source, new_target = draw(1000)


# %%
# The linear map alone is ``frame="linear"`` without training, ``max_iter=0``.


def distances(n_rows):
    source, target = draw(n_rows)
    flow = SinkhornFlowTransport(n_flows=8, random_state=0)
    untrained = SinkhornFlowTransport(frame="linear", max_iter=0)
    with warnings.catch_warnings():
        # A flow that stays at the linear map says so.
        warnings.filterwarnings("ignore", message="No network brings the held-out rows closer")
        moved = [each.fit(source, target).transform(new_source) for each in (untrained, flow)]
    print(f"{n_rows} rows: kept the network of step {flow.model_.n_kept}")
    return [energy_distance(each, new_target) for each in moved]


sizes = [30, 60, 120, 250, 1000]
found = np.array([distances(n_rows) for n_rows in sizes])

# %%
# Step 0 stands for the linear map. The energy distance is that to new rows of the target.

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for column, label in enumerate(["linear map", "flow"]):
    axes.plot(sizes, found[:, column], marker="o", label=label)
axes.axhline(energy_distance(new_source, new_target), color="grey", label="nothing")
axes.axhline(
    energy_distance(draw(1000)[1], new_target), color="grey", linestyle=":", label="the target itself"
)
axes.set(xscale="log", xlabel="rows of source and target", ylabel="energy distance to new rows")
axes.legend()
plt.show()
