"""
Draw digits by their label
==========================

With ``label_mode="condition"`` one network learns a flow for each class, and ``sample`` takes the labels of
the digits to draw. A classifier that has seen only real digits then judges the drawn ones.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from sklearn_nsgf import NSGFPlusPlus
from sklearn_nsgf.metrics import energy_distance

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)

# %%
# Pixels share a unit, and their spreads should count as they are: ``standardize=False``. Every class has a
# Sinkhorn flow of its own. The flows are simulated side by side in one pool.

flow = NSGFPlusPlus(
    label_mode="condition", standardize=False, n_flows=16, n_couplings=64, max_iter=3000, random_state=0
).fit(X_train, y_train)

# %%
# 40 digits are drawn of each class. The first line has the classifier's accuracy on them. The table has
# their distance to held-out digits of the same class, next to the distance between training and held-out
# digits.

digits = np.repeat(np.arange(10), 40)
drawn = flow.sample(len(digits), labels=digits, random_state=0)
classifier = KNeighborsClassifier().fit(X_train, y_train)
print(f"accuracy on held-out digits {classifier.score(X_test, y_test):.3f}, on drawn ones", end=" ")
print(f"{classifier.score(drawn, digits):.3f}")
print("digit  drawn  train (energy distance to the held-out ones)")
for digit in range(10):
    held_out = X_test[y_test == digit]
    distances = [
        energy_distance(rows, held_out) for rows in (drawn[digits == digit], X_train[y_train == digit])
    ]
    print(f"{digit:5d} {distances[0]:6.2f} {distances[1]:6.2f}")

# %%

pictures = np.pad(drawn.reshape(10, 40, 8, 8)[:, :12], [(0, 0), (0, 0), (1, 1), (1, 1)])
figure, ax = plt.subplots(figsize=(7, 5.9), layout="constrained")
ax.imshow(pictures.transpose(0, 2, 1, 3).reshape(100, 120), cmap="gray_r", vmin=0, vmax=16)
ax.set(xticks=[], yticks=np.arange(10) * 10 + 4.5, yticklabels=range(10), title="drawn by their label")
figure.savefig("conditional_digits.png", dpi=120)
plt.show()
