"""
Use a network of your own
=========================

``network`` takes a function that makes a torch module. The module is called with times and points, and
answers with velocities. The target here repeats itself; a network that is given sines of the points finds
that easier than the default perceptron.
"""

# %%
# A target of many narrow stripes. The estimator centres and scales the points before the network sees them.

import matplotlib.pyplot as plt
import numpy as np
import torch

from sklearn_nsgf import SinkhornFlowTransport


def draw_stripes(n_rows, rng):
    across = rng.integers(-3, 4, n_rows) + 0.1 * rng.normal(size=n_rows)
    return np.column_stack([across, rng.normal(size=n_rows)])


rng = np.random.default_rng(0)
X, X_new = rng.normal(size=(6000, 2)), rng.normal(size=(3000, 2))
y, y_new = draw_stripes(6000, rng), draw_stripes(3000, rng)

# %%
# The function is given the shape of a point. The module takes times of shape (n,) and points of shape
# (n, n_features).


class Periodic(torch.nn.Module):
    """A perceptron of points, times, and sines and cosines of both."""

    def __init__(self, n_features, n_frequencies=6, width=128):
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(n_frequencies) / 2)
        n_inputs = (n_features + 1) * (1 + 2 * n_frequencies)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(n_inputs, width),
            torch.nn.SiLU(),
            torch.nn.Linear(width, width),
            torch.nn.SiLU(),
            torch.nn.Linear(width, n_features),
        )

    def forward(self, t, x):
        inputs = torch.cat([t[:, None], x], dim=1)
        angles = (inputs[:, :, None] * self.frequencies).flatten(1)
        return self.layers(torch.cat([inputs, angles.sin(), angles.cos()], dim=1))


def make_periodic(event_shape):
    return Periodic(event_shape[0])


# %%
# How many points end in a stripe, at most a quarter from its centre? By chance half would. "auto" gives other
# networks than the perceptron a learning rate of 0.001, which is low for one as small as this.


def share_in_stripes(rows):
    return np.mean(np.abs(rows[:, 0] - rows[:, 0].round()) < 0.25)


moved = {}
for name, network, learning_rate in [("default", None, "auto"), ("own", make_periodic, 0.005)]:
    flow = SinkhornFlowTransport(
        network=network,
        learning_rate=learning_rate,
        n_steps=10,
        blur=0.01,
        n_flows=12,
        max_iter=1000,
        random_state=0,
    )
    moved[name] = flow.fit(X, y).transform(X_new)
    print(f"{name} network: {share_in_stripes(moved[name]):.2f} in stripes")
print(f"target: {share_in_stripes(y_new):.2f} in stripes")

# %%
# Over three seeds the default network has 0.62 to 0.63 of the points in stripes, and the own one 0.89 to
# 0.91.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True, layout="constrained")
panels = {"target": y_new, "default network": moved["default"], "own network": moved["own"]}
for ax, (title, rows) in zip(axes, panels.items(), strict=True):
    ax.scatter(*rows.T, s=2, color="tab:brown")
    ax.set(title=title, xticks=[], yticks=[], xlim=(-4, 4), ylim=(-3.5, 3.5))
figure.savefig("own_network.png", dpi=120)
plt.show()
