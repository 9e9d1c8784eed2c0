"""
Save a flow, and open it
========================

Three ways to save a fitted flow: ``joblib`` and ``pickle``, which run code when they open a file, and
``skops``, which does not. The picture compares what the opened flows answer.
"""

import pickle
import tempfile
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import skops.io
from sklearn.datasets import make_moons

from sklearn_nsgf import SinkhornFlowTransport

rng = np.random.default_rng(0)
X, (y, _) = rng.normal(size=(1000, 2)), make_moons(1000, noise=0.05, random_state=0)
flow = SinkhornFlowTransport(n_flows=8, flow_batch_size=256, max_iter=500, random_state=0).fit(X, y)
folder = Path(tempfile.mkdtemp())

# %%
# For your own files
# ------------------
#
# ``joblib`` and ``pickle`` keep everything. Open only files that you trust.

joblib.dump(flow, folder / "flow.joblib")
from_joblib = joblib.load(folder / "flow.joblib")

(folder / "flow.pickle").write_bytes(pickle.dumps(flow))
from_pickle = pickle.loads((folder / "flow.pickle").read_bytes())

# %%
# For files from others
# ---------------------
#
# ``skops`` builds only objects of types that you trust. In a file of this package these are its own classes.

skops.io.dump(flow, folder / "flow.skops")
types = skops.io.get_untrusted_types(file=folder / "flow.skops")
print(*types, sep="\n")
assert all(name.startswith("sklearn_nsgf.") for name in types)
from_skops = skops.io.load(folder / "flow.skops", trusted=types)

# %%
# The same answers, to the byte
# -----------------------------
#
# The opened flow needs the same version of the package, or warns. It can go on learning with ``partial_fit``,
# and one that was fitted on a GPU opens on a machine without.

X_new = rng.normal(size=(1000, 2))
expected = flow.transform(X_new)
opened = {"joblib": from_joblib, "pickle": from_pickle, "skops": from_skops}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharex=True, sharey=True, layout="constrained")
for ax, (name, each) in zip(axes, opened.items(), strict=True):
    answer = each.transform(X_new)
    size = (folder / f"flow.{name}").stat().st_size
    print(f"{name}: {size / 1000:.0f} kB, the same answer: {np.array_equal(answer, expected)}")
    ax.scatter(*expected.T, s=30, color="lightgrey", label="before saving")
    ax.scatter(*answer.T, s=3, color="tab:purple", label="opened")
    ax.set(title=f"{name}, {size / 1000:.0f} kB", xticks=[], yticks=[])
axes[0].legend(loc="upper right")
plt.show()
