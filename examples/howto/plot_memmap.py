"""
Rows in a file
==============

A million rows lie in a file. A fit reads the rows that it needs, and ``transform`` writes its answer into
another file, part by part. Neither is ever in the memory as a whole.
"""

# %%
# Two files
# ---------
#
# ``numpy.load`` with ``mmap_mode`` opens a file without reading it. ``open_memmap`` makes one.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.lib.format import open_memmap

from sklearn_nsgf import SinkhornFlowTransport

N_ROWS, N_FEATURES, N_AT_ONCE = 1_000_000, 20, 100_000
folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
shape = {"dtype": np.float32, "shape": (N_ROWS, N_FEATURES)}
files = {name: open_memmap(folder / f"{name}.npy", mode="w+", **shape) for name in ("source", "target")}
for start in range(0, N_ROWS, N_AT_ONCE):
    part = slice(start, start + N_AT_ONCE)
    files["source"][part] = rng.normal(size=(N_AT_ONCE, N_FEATURES))
    files["target"][part] = rng.normal(size=(N_AT_ONCE, N_FEATURES))
    files["target"][part, 1] += 0.7 * files["target"][part, 0] ** 2

# %%
# Fit, and transform into a third file
# ------------------------------------


def anonymous_megabytes():
    """Memory of this process that no file holds; Linux only."""
    status = Path("/proc/self/status")
    if not status.exists():
        return np.nan
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1000


before = anonymous_megabytes()
X = np.load(folder / "source.npy", mmap_mode="r")
y = np.load(folder / "target.npy", mmap_mode="r")
flow = SinkhornFlowTransport(n_flows=8, max_iter=500, random_state=0).fit(X, y)
after_fit = anonymous_megabytes()
moved = open_memmap(folder / "moved.npy", mode="w+", **shape)
flow.transform(X, out=moved)
after_transform = anonymous_megabytes()

print(f"a file has {X.nbytes / 1e6:.0f} MB")
print(f"memory: {before:.0f} MB, after the fit {after_fit:.0f} MB, after transform {after_transform:.0f} MB")

# %%
# Every eighth row, in the first two columns.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharex=True, sharey=True, layout="constrained")
for ax, (title, rows) in zip(axes, {"source": X, "moved": moved, "target": y}.items(), strict=True):
    ax.hexbin(*rows[::8, :2].T, gridsize=60, extent=(-4, 4, -4, 8), bins="log", cmap="viridis")
    ax.set(title=title, xticks=[], yticks=[])
plt.show()
