"""
Generate digits with NSGF++
===========================

NSGF++ works on images. Two steps along a Sinkhorn flow lead from noise to something like a digit, and three
straight steps make it one. Flow matching with the same U-Net and as many iterations needs more evaluations
for the same quality.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus
from sklearn_nsgf.metrics import energy_distance
from sklearn_nsgf.networks import UNet

images = load_digits().images.astype(np.uint8)  # (1797, 8, 8), grey values 0 to 16
train, test = train_test_split(images, test_size=397, random_state=0)


def small_unet(event_shape):
    return UNet(event_shape, n_channels=16, channel_multipliers=(1, 2), attention_levels=())


# %%
# Without a second sample the source is noise. Pass the images as they are: the estimator finds their
# layout, and generates images in the same layout.

N_ITER = 400
flow = NSGFPlusPlus(
    network=small_unet,
    learning_rate=0.003,
    batch_size=64,
    max_iter=N_ITER,
    n_flows=16,
    n_couplings=64,
    n_straight_steps=3,
    random_state=0,
).fit(train)
straight = FlowMatchingTransport(
    network=small_unet,
    learning_rate=0.003,
    batch_size=64,
    max_iter=N_ITER,
    n_couplings=128,
    coupling="independent",
    random_state=0,
).fit(train)

# %%
# How far are the samples from the 397 held-out digits? Near zero, they are as close as the training digits
# themselves.


def distance(samples):
    return energy_distance(samples.reshape(len(samples), -1), test.reshape(len(test), -1))


print(f"training digits: {distance(train):.3f}")
samples = flow.sample(1000, random_state=0)
print(f"NSGF++, {flow.n_function_evaluations_} evaluations: {distance(samples):.3f}")
for n_steps in (5, 10, 20):
    straight.set_params(n_steps=n_steps)
    samples = straight.sample(1000, random_state=0)
    print(f"flow matching, {straight.n_function_evaluations_} evaluations: {distance(samples):.3f}")

# %%
# Samples are on the left. On the right is the path of eight of them: noise, two Sinkhorn steps, three
# straight steps.


def tile(pictures, n_rows):
    pictures = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    n, height, width = pictures.shape
    grid = pictures.reshape(n_rows, n // n_rows, height, width)
    return grid.transpose(0, 2, 1, 3).reshape(n_rows * height, -1)


pixels = train.reshape(len(train), -1)
noise = np.random.default_rng(0).multivariate_normal(pixels.mean(0), np.cov(pixels.T), size=8)
path = flow.integrate(noise.reshape(8, 8, 8), return_path=True).swapaxes(0, 1).reshape(-1, 8, 8)
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", width_ratios=[12, 6])
axes[0].imshow(tile(flow.sample(96, random_state=1), 8), cmap="gray_r", vmin=0, vmax=16)
axes[0].set_title("samples")
axes[1].imshow(tile(path, 8), cmap="gray_r", vmin=0, vmax=16)
axes[1].set_title("from noise to digit")
for axis in axes:
    axis.set(xticks=[], yticks=[])
plt.show()
