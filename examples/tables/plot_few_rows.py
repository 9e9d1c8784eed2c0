"""
Few rows
========

How many rows does a flow need? It starts at the linear map between source and target, and keeps that unless
held-out rows show that a network brings them closer. Of fewer than 500 rows each is held out in turn. With
few rows the answer is therefore never much worse than the linear map. With more rows it gets better where the
map is not linear. The same rule keeps a flow that draws more rows like a few from drawing copies of them.
"""

# %%
# The target is bent: the second feature has a part of the square of the first. The source is normal.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import cdist
from sklearn.datasets import make_moons
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_score

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

# %%
# More like a hundred rows
# ------------------------
#
# ``fit(X)`` learns to draw rows like those of ``X``. It starts at a normal distribution around each
# cluster, of which there are as many as make held-out rows likely: ``max_iter=0`` draws from there. The
# default asks folds whether a few steps help, as it does above. Of these hundred rows they say no, a warning
# says so, and the start is kept. Without held-out rows the flow trains on, and learns where each row is.

X, _ = make_moons(100, noise=0.2, random_state=0)
new, _ = make_moons(1000, noise=0.2, random_state=1)
flow = SinkhornFlowTransport(n_flows=8, random_state=0)
drawn = {}
for name, params in {
    "max_iter=0": {"max_iter": 0},
    "default": {"max_iter": 1500},
    "early_stopping=False": {"early_stopping": False},
}.items():
    drawn[name] = flow.set_params(**params).fit(X).sample(1000, random_state=0)

# %%
# The figure below each name is the median distance from a drawn row to the closest of the hundred, over that
# of new rows: 1 is right, less is copying. Trees tell the copies from new rows more often (an AUC of .5 is
# best).


def auc(rows):
    judged, truth = np.concatenate([rows, new]), np.repeat([0, 1], [len(rows), len(new)])
    return cross_val_score(HistGradientBoostingClassifier(), judged, truth, cv=5, scoring="roc_auc").mean()


figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True, layout="constrained")
for axis, (name, rows) in zip(axes, drawn.items(), strict=True):
    to_drawn, to_new = (np.median(cdist(each, X).min(axis=1)) for each in (rows, new))
    print(f"{name}: closest {to_drawn / to_new:.2f}, AUC {auc(rows):.2f}")
    axis.scatter(*rows.T, s=4, alpha=0.5, label="drawn")
    axis.scatter(*X.T, s=12, color="black", label="the hundred")
    axis.set_title(f"{name}\n{to_drawn / to_new:.2f}")
axes[0].legend(loc="lower left")
plt.show()
