"""
Adapt a classifier to another instrument
========================================

Two classes were measured with labels on one instrument. On a second instrument the measurements look
different: they are turned, stretched and shifted, one class is somewhat rarer, and there are no labels. A
flow moves the labelled measurements to the second instrument, and a classifier learns from the moved ones.
"""

import matplotlib.pyplot as plt
import numpy as np
import ot
import sklearn
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.domains import SourceOnly, stack_domains

COLOURS = np.array(["tab:blue", "tab:orange"])


def measure(n_samples, share, rng):
    """Two bent clusters, one above the other."""
    labels = (rng.random(n_samples) < share).astype(int)
    across = rng.normal(size=n_samples)
    along = 0.3 * rng.normal(size=n_samples) + 0.5 * across**2 + np.where(labels == 1, 2.2, 0.0)
    return np.column_stack([across, along]), labels


def second_instrument(X):
    return 1.7 * X @ [[0.9, 0.45], [-0.45, 0.9]] + [6, -2]


rng = np.random.default_rng(0)
X_first, y_first = measure(500, 0.5, rng)
X_second, y_second = measure(500, 0.4, rng)
X_new, y_new = measure(2000, 0.4, rng)
X_second, X_new = second_instrument(X_second), second_instrument(X_new)

# %%
# Both samples go into one array. The rows of the first instrument have labels, those of the second have -1.
# The pipeline standardises both samples. ``SourceOnly`` moves the first one, and its classifier learns from
# the moved rows. New rows of the second instrument are then classified as they are.

sklearn.set_config(enable_metadata_routing=True)
X, y, sample_domain = stack_domains(X_first, X_second, y_first)


def accuracy(label_mode):
    flow = SinkhornFlowTransport(label_mode=label_mode, blur=0.1, n_flows=16, max_iter=500, random_state=0)
    pipeline = make_pipeline(StandardScaler(), SourceOnly(KNeighborsClassifier(5), transport=flow))
    pipeline.fit(X, y, sample_domain=sample_domain)
    return pipeline.score(X_new, y_new), pipeline


def accuracy_of(X_moved):
    return KNeighborsClassifier(5).fit(X_moved, y_first).score(X_new, y_new)


# %%
# A linear map and POT's SinkhornTransport serve as comparison. Like any transport of the whole mass, the
# plain flow has to send some of the class that is rarer on the second instrument to the other class. With
# ``label_mode="couple"`` each class goes to the rows that an entropic plan gives to it.

linear = ot.da.LinearTransport().fit(Xs=X_first, Xt=X_second).transform(Xs=X_first)
entropic = ot.da.SinkhornTransport(reg_e=0.05, norm="median", max_iter=200)
entropic = entropic.fit(Xs=X_first, Xt=X_second).transform(Xs=X_first)
scores = {"no transport": accuracy_of(X_first), "linear": accuracy_of(linear)}
scores["SinkhornTransport"] = accuracy_of(entropic)
scores["flow"], _ = accuracy("ignore")
scores['flow, label_mode="couple"'], pipeline = accuracy("couple")
scores["labels of the second instrument"] = (
    KNeighborsClassifier(5).fit(X_second, y_second).score(X_new, y_new)
)
print("accuracy on new rows of the second instrument")
for name, score in scores.items():
    print(f"{name:>32} {score:.3f}")

# %%

scaler, classifier = pipeline
moved = scaler.inverse_transform(classifier.transport_.transform(scaler.transform(X_first)))
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True, layout="constrained")
panels = {
    "first instrument, labelled": (X_first, y_first),
    "second instrument, true classes": (X_second, y_second),
    'first one, moved with "couple"': (moved, y_first),
}
for ax, (title, (points, labels)) in zip(axes, panels.items(), strict=True):
    ax.scatter(*points.T, s=6, c=COLOURS[labels], alpha=0.6, linewidths=0)
    ax.set_title(title)
figure.savefig("domain_adaptation.png", dpi=120)
sklearn.set_config(enable_metadata_routing=False)
plt.show()
