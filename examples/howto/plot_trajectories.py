"""
Plot a fitted flow
==================

The displays of ``sklearn_nsgf.inspection`` show what a fitted estimator does: the paths of the points,
where the points end, and how the training went.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from sklearn_nsgf import NSGFPlusPlus
from sklearn_nsgf.inspection import LossCurveDisplay, TrajectoryDisplay, TransportDisplay


def make_eight_gaussians(n_samples, rng):
    angles = 2 * np.pi * rng.integers(8, size=n_samples) / 8
    centres = 4 * np.column_stack([np.cos(angles), np.sin(angles)])
    return centres + 0.3 * rng.normal(size=(n_samples, 2))


rng = np.random.default_rng(0)
X = make_eight_gaussians(6000, rng)
y, _ = make_moons(6000, noise=0.05, random_state=0)
y = 3 * (y - [0.5, 0.25])
X_new = make_eight_gaussians(200, rng)

# %%
# The sizes are below their defaults to save time.

flow = NSGFPlusPlus(
    n_flows=24,
    flow_batch_size=512,
    coupling_batch_size=256,
    n_couplings=128,
    max_iter=1000,
    early_stopping=True,
    random_state=0,
).fit(X, y)

# %%
# The left panel shows the paths of new points. Two Sinkhorn steps bring them near the moons, and short
# straight steps bring them onto the moons. The middle panel shows the same points before and after, with
# arrows for half of them. The right panel shows the loss and, dashed, the energy distance of held-out
# points.

fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
TrajectoryDisplay.from_estimator(flow, X_new, ax=left)
TransportDisplay.from_estimator(flow, X_new, y[:2000], ax=middle)
LossCurveDisplay.from_estimator(flow, ax=right)
for ax, title in [(left, "Trajectories"), (middle, "Transport")]:
    ax.set(title=title, aspect="equal", xlim=(-6, 6), ylim=(-5.5, 6.5))
    ax.legend(loc="upper center", ncols=3, frameon=False)
right.set(title="Training", box_aspect=1)
fig.savefig("trajectories.png", dpi=150)
plt.show()
