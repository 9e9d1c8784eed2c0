"""
Particles and the learnt flow
=============================

This example goes from eight Gaussians to two moons. First it runs the Sinkhorn flow itself: 300 particles
move to 300 points of the target, and only these particles. Then a network is fitted to many such flows. It
moves points that no flow has seen.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_moons

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.flow import particle_flow
from sklearn_nsgf.metrics import energy_distance


def make_eight_gaussians(n_samples, rng):
    angles = 2 * np.pi * rng.integers(8, size=n_samples) / 8
    centres = 4 * np.column_stack([np.cos(angles), np.sin(angles)])
    return centres + 0.3 * rng.normal(size=(n_samples, 2))


def make_target(n_samples, seed):
    X, _ = make_moons(n_samples, noise=0.05, random_state=seed)
    return 3 * (X - [0.5, 0.25])


rng = np.random.default_rng(0)
X, y = make_eight_gaussians(2000, rng), make_target(2000, seed=0)
X_new, y_new = make_eight_gaussians(300, rng), make_target(2000, seed=1)

# %%
# The functions in ``sklearn_nsgf.flow`` take tensors, and a blur in the units of the data. With harmonic
# steps, each of the five steps covers about a fifth of a particle's way.

trajectory = particle_flow(
    torch.tensor(X[:300]), torch.tensor(y[:300]), blur=0.1, n_steps=5, step_size="harmonic"
)

# %%
# The estimator takes arrays, and its blur is a fraction of the target's size. ``integrate`` with
# ``return_path=True`` returns the points after every step.

flow = SinkhornFlowTransport(n_flows=32, random_state=0)
path = flow.fit(X, y).integrate(X_new, return_path=True)

print("energy distance to held-out target points")
print(f"  new points before      {energy_distance(X_new, y_new):7.4f}")
print(f"  new points transported {energy_distance(path[-1], y_new):7.4f}")
print(f"  target of the fit      {energy_distance(y, y_new):7.4f}")

# %%
# Grey points are the target. Paths lead from blue to orange.

fig, axes = plt.subplots(1, 2, figsize=(9, 4.5), sharex=True, sharey=True, layout="constrained")
panels = {"Particles of one flow": trajectory.x.numpy(), "Learnt flow, new points": path}
for ax, (title, positions) in zip(axes, panels.items(), strict=True):
    ax.scatter(*y_new.T, s=2, color="lightgrey")
    ax.plot(*positions.transpose(2, 0, 1), color="black", linewidth=0.3, alpha=0.5)
    ax.scatter(*positions[0].T, s=4, color="tab:blue")
    ax.scatter(*positions[-1].T, s=4, color="tab:orange", zorder=3)
    ax.set(title=title, aspect="equal")
fig.savefig("two_moons.png", dpi=150)
plt.show()
