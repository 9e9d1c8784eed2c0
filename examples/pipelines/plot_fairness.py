"""
Repair the features of a group, in part
=======================================

A model that never sees a person's group may still treat two groups differently, because features give the
group away. A known repair moves the features of one group to where those of the other are. All of the way
costs accuracy. A flow can be stopped on its way, and this page shows what each part of it brings and costs.
"""

# %%
# Applicants of two groups
# ------------------------
#
# Three features tell what an applicant is worth. For the second group they are measured in a distorted way.
# The label, whether a loan was paid back, depends on the undistorted features and somewhat on the group.

import matplotlib.pyplot as plt
import numpy as np
import ot
from sklearn.ensemble import HistGradientBoostingClassifier

from sklearn_nsgf import SinkhornFlowTransport

rng = np.random.default_rng(0)


def draw(n_rows, is_second):
    worth = rng.normal(size=(n_rows, 3))
    pays = worth.sum(axis=1) - 0.5 * is_second + rng.normal(size=n_rows) > 0
    if is_second:
        worth[:, 0] = 0.7 * worth[:, 0] - 0.8
        worth[:, 1] += 0.5 * worth[:, 0] ** 2 - 1.2
        worth[:, 2] = np.exp(0.6 * worth[:, 2]) - 1.5
    return worth, pays


first, first_pays = draw(3000, is_second=False)
second, second_pays = draw(3000, is_second=True)
new_first, new_first_pays = draw(5000, is_second=False)
new_second, new_second_pays = draw(5000, is_second=True)

# %%
# Repair, and classify
# --------------------
#
# ``integrate`` with ``t_end`` moves the second group a part of the way. For the linear map a part of the way
# is a part of the line from a row to its image. The classifier learns from both groups together.

flow = SinkhornFlowTransport(random_state=0).fit(second, first)
linear = ot.da.LinearTransport().fit(Xs=second, Xt=first)


def by_flow(X, part):
    return flow.integrate(X, t_end=part)


def by_linear_map(X, part):
    return (1 - part) * X + part * linear.transform(Xs=X)


def gap_and_accuracy(repair, part):
    """Difference between the groups in the share of loans, and the share of right decisions."""
    classifier = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    classifier.fit(np.vstack([first, repair(second, part)]), np.hstack([first_pays, second_pays]))
    loans_first = classifier.predict(new_first)
    loans_second = classifier.predict(repair(new_second, part))
    right = np.hstack([loans_first == new_first_pays, loans_second == new_second_pays])
    return loans_first.mean() - loans_second.mean(), right.mean()


parts = np.linspace(0, 1, 6)
results = {
    repair.__name__: np.array([gap_and_accuracy(repair, part) for part in parts])
    for repair in (by_linear_map, by_flow)
}
print(f"true gap in paying back: {new_first_pays.mean() - new_second_pays.mean():.3f}")
print(
    f"{'part':>6}{'gap, linear map':>17}{'gap, flow':>11}{'accuracy, linear map':>22}{'accuracy, flow':>16}"
)
for part, linear_row, flow_row in zip(parts, *results.values(), strict=True):
    print(f"{part:6.1f}{linear_row[0]:14.3f}{flow_row[0]:14.3f}{linear_row[1]:14.3f}{flow_row[1]:14.3f}")

# %%
# Over five seeds the gap falls from 0.40 to 0.43 without a repair to 0.035 to 0.056 with the linear map, and
# to -0.022 to 0.007 with the flow. Most of the gap was distortion, so that the first parts of the way even
# help the accuracy, from 0.77 to 0.78 without a repair to about 0.82. It is best at four fifths of the way or
# before that, where the gap of the flow is 0.08 to 0.10. That is the gap in paying back, 0.08 to 0.11: the
# last part closes it, too, and costs the flow 0.004 to 0.009 of its accuracy.
#
# The linear map is as accurate at the same gap. It cannot close the gap, and that is all that it lacks here.
# Which gap is fair is not for a method to say.

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for part, color in zip((0, 0.5, 1), ("tab:red", "tab:orange", "tab:green"), strict=True):
    moved = by_flow(new_second[:1000], part)
    left.scatter(*moved[:, :2].T, s=4, color=color, alpha=0.6, label=f"second group, t = {part}")
left.scatter(*new_first[:1000, :2].T, s=4, color="lightgrey", zorder=0, label="first group")
left.set(xlabel="feature 0", ylabel="feature 1")
left.legend(markerscale=3)
for (name, result), marker in zip(results.items(), "so", strict=True):
    right.plot(*result.T, marker=marker, label=name.replace("_", " "))
right.axvline(0, color="black", linewidth=0.8)
right.set(xlabel="gap between the groups", ylabel="accuracy")
right.invert_xaxis()
right.legend()
figure.savefig("fairness.png", dpi=120)
plt.show()
