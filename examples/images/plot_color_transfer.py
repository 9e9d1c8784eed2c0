"""
=====================================================
Transfer the colours of one photograph to another one
=====================================================

The pixels of two photographs are not paired. A flow is fitted on 2 000 pixels of each photograph. It moves
every pixel of one photograph to the colours of the other, and back. Two other methods do the same: a
Gaussian (linear) optimal map, and POT's ``SinkhornTransport``, which extends a plan between 500 pixels to
new ones.

The energy distance measures how well the colours match. It compares with pixels of the target photograph
that no method was fitted on. Zero is a perfect match.
"""

# %%
# The photographs come with scikit-learn.
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import ot
from sklearn.datasets import load_sample_image

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.metrics import energy_distance

china, flower = (load_sample_image(name) / np.float32(255) for name in ("china.jpg", "flower.jpg"))
rng = np.random.default_rng(0)


def draw_pixels(photograph):
    """2 000 pixels to fit on and 4 000 others to score on."""
    pixels = rng.permutation(photograph.reshape(-1, 3))[:6000]
    return pixels[:2000], pixels[2000:]


photographs = {"china": china, "flower": flower}
fitted_on, held_out = {}, {}
for name, photograph in photographs.items():
    fitted_on[name], held_out[name] = draw_pixels(photograph)


# %%
# All three transports have the same interface: fit once, ``transform`` china, ``inverse_transform`` flower.
def both_ways(transport):
    """POT's ``inverse_transform`` takes the target as a keyword."""
    return transport.transform, lambda pixels: transport.inverse_transform(Xt=pixels)


def fit_linear(source, target):
    return both_ways(ot.da.LinearTransport().fit(Xs=source, Xt=target))


def fit_sinkhorn(source, target):
    """The best of a grid of reg, scored on the 1 500 pixels of each side that it is not fitted on."""
    candidates = []
    for reg in (0.003, 0.01, 0.03, 0.1):
        transport = ot.da.SinkhornTransport(reg_e=reg, norm="max")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transport.fit(Xs=source[:500].astype(float), Xt=target[:500].astype(float))
            moved = transport.transform(Xs=source[500:])
        if np.isfinite(moved).all():
            candidates.append((energy_distance(moved, target[500:]), reg, transport))
    return both_ways(min(candidates, key=lambda candidate: candidate[0])[2])


def fit_flow(source, target):
    # Colours are plain numbers, although grey values repeat: scores would scatter equal ones.
    flow = SinkhornFlowTransport(frame="linear", random_state=0).fit(source, target)
    return flow.transform, flow.inverse_transform


methods = {
    "linear": fit_linear,
    "SinkhornTransport": fit_sinkhorn,
    "SinkhornFlowTransport": fit_flow,
}


def distance_to(name, pixels):
    chosen = rng.permutation(pixels.reshape(-1, 3))[:4000]
    return energy_distance(chosen, held_out[name])


# %%
# The table has the energy distance to held-out pixels, on a scale where black is 0 and white is 1.
print(f"{'':22}{'china → flower':>17}{'flower → china':>17}{'fit s':>8}{'transform s':>13}")
print(f"{'before':22}{distance_to('flower', china):17.4f}{distance_to('china', flower):17.4f}")
for name, fit in methods.items():
    start = time.perf_counter()
    transform, inverse_transform = fit(fitted_on["china"], fitted_on["flower"])
    fitted = time.perf_counter()
    moved_china = transform(china.reshape(-1, 3)).reshape(china.shape)
    done = time.perf_counter()
    moved_flower = inverse_transform(flower.reshape(-1, 3)).reshape(flower.shape)
    distances = f"{distance_to('flower', moved_china):17.4f}{distance_to('china', moved_flower):17.4f}"
    print(f"{name:22}{distances}{fitted - start:8.1f}{done - fitted:13.1f}")

# %%
# The first row has the photographs, and the second row shows them after the transport by the flow.
figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
pictures = {
    "china": china,
    "flower": flower,
    "china in the colours of flower": moved_china,
    "flower in the colours of china": moved_flower,
}
for axis, (title, picture) in zip(axes.flat, pictures.items(), strict=True):
    axis.imshow(picture.clip(0, 1))
    axis.set_title(title)
    axis.axis("off")
figure.savefig("color_transfer.png", dpi=100)
plt.show()
