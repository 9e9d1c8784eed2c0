"""
Follow a fit
============

By default a fit prints nothing. scikit-learn's callbacks, from its version 1.9 on, say how far it is and how
good it is by then, and can stop it.
"""

# %%
# Two callbacks of scikit-learn
# -----------------------------
#
# ``ScoringMonitor`` scores the flow at every evaluation. ``ProgressBar`` draws a bar for each phase; it needs
# ``pip install rich``, and a terminal, which this page is not:
# ``flow.set_callbacks(ProgressBar(), monitor)``.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.callback import ScoringMonitor
from sklearn.datasets import make_moons

from sklearn_nsgf import SinkhornFlowTransport
from sklearn_nsgf.inspection import LossCurveDisplay
from sklearn_nsgf.metrics import make_transport_scorer

rng = np.random.default_rng(0)
X, (y, _) = rng.normal(size=(2000, 2)), make_moons(2000, noise=0.05, random_state=0)
monitor = ScoringMonitor(scoring={"energy": make_transport_scorer()})
flow = SinkhornFlowTransport(n_flows=8, max_iter=1000, early_stopping=False, random_state=0)
flow.set_callbacks(monitor).fit(X, y)
# The first row is about the fit as a whole, the others are about its evaluations.
scores = monitor.get_logs().data_as_pandas[1:]
print(scores["energy"].describe())

# %%
# One of your own
# ---------------
#
# A callback is a class with four methods. If ``on_fit_task_end`` returns true, the phase ends and the fit
# keeps what it has learnt. This one stops after a number of seconds.


class StopAfter:
    """Stop a training after so many seconds."""

    def __init__(self, seconds):
        self.seconds = seconds

    def setup(self, estimator, context):
        self.end = time.perf_counter() + self.seconds

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        return time.perf_counter() > self.end


short = SinkhornFlowTransport(max_iter=100_000, early_stopping=False, random_state=0)
short.set_callbacks(StopAfter(seconds=3)).fit(X, y)
print(f"stopped after {short.n_iter_} of {short.max_iter} iterations")

# %%
# What they saw
# -------------
#
# The training loss does not tend to zero, since different particles pass the same point. The score, minus an
# energy distance, does. ``LossCurveDisplay`` draws the loss of any fit, without a callback.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
LossCurveDisplay.from_estimator(flow, ax=left)
right.plot(scores["energy"], color="tab:red")
right.set(xlabel="evaluation", ylabel="score", title="ScoringMonitor")
left.set_title("LossCurveDisplay")
plt.show()
